//! Arguments of `doctor`.

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgAction, ArgMatches};

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
    /// Takes the arguments that [`args`] defines.
    pub(crate) fn from_matches(found: &ArgMatches) -> Options {
        let text = |name: &str| found.get_one::<String>(name).cloned();
        Options {
            json: found.get_flag("json"),
            region: text("region"),
            profile: text("profile"),
            target: text("target"),
            url: text("url"),
        }
    }
}

/// The definition of the arguments, for parser, help, completion and manual.
pub(crate) fn args() -> [Arg; 5] {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).value_parser(NonEmptyStringValueParser::new()).help(help)
    };
    [
        option("target", "TARGET", "Look up this instance: its connection, platform and agent"),
        option("profile", "PROFILE", "AWS profile to check [default: AWS_PROFILE]"),
        option("region", "REGION", "AWS region to check [default: from the environment or the profile]"),
        option("url", "URL", "Open a websocket to this URL instead of the region's endpoint"),
        Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print one JSON object"),
    ]
}
