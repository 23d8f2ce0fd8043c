//! Tunnels of the settings file: `[tunnels.NAME]`, for `forward NAME`.

use std::ffi::OsString;

use serde::Deserialize;
use toml::Table;

use super::file::{self, TUNNELS};

/// Destination of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tunnel {
    pub target: String,
    pub profile: Option<String>,
    pub region: Option<String>,
    /// Each as on the command line.
    #[serde(default)]
    pub forwards: Vec<String>,
    /// Port of the SOCKS proxy.
    pub socks: Option<u16>,
    pub sessions: Option<usize>,
}

impl Tunnel {
    /// The tunnel `name` of the user's settings file; `None` if there is none.
    ///
    /// # Errors
    /// A phrase about a tunnel that is not understood.
    pub(crate) fn load(name: &str, get: impl Fn(&str) -> Option<OsString>) -> Result<Option<Tunnel>, String> {
        let Some(path) = file::config_file(get) else { return Ok(None) };
        // What is wrong with the file as a whole is reported with the settings.
        let table = file::text(&path).ok().and_then(|text| text.parse::<Table>().ok());
        let tunnels = table.and_then(|mut table| table.remove(TUNNELS));
        let tunnel = tunnels.and_then(|tunnels| tunnels.as_table()?.get(name).cloned());
        let tunnel = tunnel.map(|value| value.try_into::<Tunnel>()).transpose();
        tunnel.map_err(|error| {
            let reason = error.message().lines().next().unwrap_or_default();
            format!("settings file {}: {TUNNELS}.{name}: {reason}", path.display())
        })
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn tunnels_by_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("session-manager-plugin")).unwrap();
        let load = |text: &str, name: &str| {
            std::fs::write(dir.path().join("session-manager-plugin/config.toml"), text).unwrap();
            Tunnel::load(name, |variable| (variable == "XDG_CONFIG_HOME").then(|| dir.path().into()))
        };
        let text = "quiet = true\n[tunnels.db]\ntarget = 'web'\nregion = 'eu-west-1'\nforwards = ['15432:db.internal:5432']\n\
                    socks = 1080\nsessions = 2\n";
        let tunnel = Tunnel {
            target: "web".to_owned(),
            profile: None,
            region: Some("eu-west-1".to_owned()),
            forwards: vec!["15432:db.internal:5432".to_owned()],
            socks: Some(1080),
            sessions: Some(2),
        };
        assert_eq!(load(text, "db"), Ok(Some(tunnel)));
        assert_eq!(load(text, "other"), Ok(None));
        for text in
            ["[tunnels.db]\n", "[tunnels.db]\ntarget = 1\n", "[tunnels.db]\ntarget = 'x'\ncolour = 1\n"]
        {
            let error = load(text, "db").unwrap_err();
            assert!(error.contains("tunnels.db: ") && !error.contains('\n'), "{error}");
        }
    }
}
