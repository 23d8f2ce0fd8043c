//! Names of settings: variables of the environment, and keys of the settings file.

/// The prefix of our own variables.
pub(crate) const PREFIX: &str = "SSM_PLUGIN_";

/// The key in the settings file of the variable `name`: in lower case, without the prefix.
pub(super) fn key(name: &str) -> String {
    name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase()
}

/// Returns whether only this program reads the variable `name`.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}
