//! Arguments of `doctor`.

/// The arguments after `doctor`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Print JSON.
    pub json: bool,
    /// The region instead of the environment's or the profile's.
    pub region: Option<String>,
    /// The profile instead of the environment's.
    pub profile: Option<String>,
    /// The instance to look up.
    pub target: Option<String>,
    /// The websocket's URL instead of the region's endpoint.
    pub url: Option<String>,
}

impl Options {
    /// Reads `--name value` or `--name=value`.
    ///
    /// # Errors
    /// A sentence about the argument that is not understood.
    pub(crate) fn parse(arguments: &[String]) -> Result<Options, String> {
        let mut options = Options::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (name, mut value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            let option = match name {
                "--json" if value.is_none() => {
                    options.json = true;
                    continue;
                }
                "--region" => &mut options.region,
                "--profile" => &mut options.profile,
                "--target" => &mut options.target,
                "--url" => &mut options.url,
                _ => return Err(format!("unknown argument {argument:?}; see doctor --help")),
            };
            if value.is_none() {
                value = arguments.next().cloned();
            }
            *option =
                Some(value.filter(|value| !value.is_empty()).ok_or(format!("{name} requires a value"))?);
        }
        Ok(options)
    }
}

/// The options with their values, for help and manual.
pub(crate) const OPTIONS: &[(&str, &str, &str)] = &[
    ("--json", "", "Print one JSON object."),
    ("--region", "region", "Check this region instead of the environment's or the profile's."),
    ("--profile", "profile", "Check this profile instead of the environment's."),
    ("--target", "target", "Look up this instance: its connection, platform and agent."),
    ("--url", "url", "Open a websocket to this URL instead of the region's endpoint."),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::parse(&arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read() {
        assert_eq!(parse(&[]), Ok(Options::default()));
        let options =
            parse(&["--json", "--region", "eu-west-1", "--profile=p", "--url", "wss://h/x?a=b"]).unwrap();
        assert!(options.json);
        assert_eq!(options.region.as_deref(), Some("eu-west-1"));
        assert_eq!(options.profile.as_deref(), Some("p"));
        assert_eq!(parse(&["--target", "i-1"]).unwrap().target.as_deref(), Some("i-1"));
        assert_eq!(options.url.as_deref(), Some("wss://h/x?a=b"));
        assert_eq!(parse(&["--region"]).unwrap_err(), "--region requires a value");
        assert_eq!(parse(&["--url="]).unwrap_err(), "--url requires a value");
        assert_eq!(parse(&["--fix"]).unwrap_err(), "unknown argument \"--fix\"; see doctor --help");
    }
}
