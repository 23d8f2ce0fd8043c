//! Profile and region of the caller.

use aws_config::profile::ProfileSet;

use super::options::Options;
use super::report::Check;
use crate::link::partition::Variant;

/// The profile and region that environment and profile files name.
#[derive(Debug)]
pub(super) struct Identity {
    pub region: Option<String>,
    region_from: String,
    pub profile: String,
    /// The option or variable that names the profile; `None` for the default one.
    pub profile_from: Option<&'static str>,
    pub files: Result<ProfileSet, String>,
    pub ca_bundle: Option<std::path::PathBuf>,
    /// The endpoints that environment or profile ask for.
    pub variant: Variant,
}

impl Identity {
    /// Reads the environment and the profile files.
    pub(super) async fn read(options: &Options) -> Identity {
        let named = match &options.profile {
            Some(profile) => Some((profile.clone(), "--profile")),
            None => first(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]),
        };
        let (profile, profile_from) = match named {
            Some((profile, from)) => (profile, Some(from)),
            None => ("default".to_owned(), None),
        };
        let name = profile_from.map(|_| profile.as_str());
        let files = crate::aws::profiles(name).await;
        let (region, region_from) = region_of(options, files.as_ref().ok(), &profile);
        let ca_bundle = files.as_ref().ok().and_then(crate::aws::ca_bundle);
        let variant = Variant {
            fips: wants(FIPS, files.as_ref().ok()),
            dual_stack: wants(DUAL_STACK, files.as_ref().ok()),
        };
        Identity { region, region_from, profile, profile_from, files, ca_bundle, variant }
    }

    /// Returns whether there is a region that an endpoint's name can be made of.
    pub(super) fn has_region(&self) -> bool {
        self.region.as_deref().is_some_and(is_region)
    }

    /// Checks that a region is named, and that the AWS CLI reads it as well.
    pub(super) fn check_region(&self, options: &Options, cli: &Check) -> Check {
        const NAME: &str = "region";
        let is_cli_1 = cli.found.contains("aws-cli/1.");
        let check = match &self.region {
            Some(region) if !is_region(region) => {
                Check::failure(NAME, format!("{region:?} (from {}) is not a valid region", self.region_from))
                    .advice("regions look like eu-west-1")
            }
            Some(region) if is_cli_1 && self.region_from == CLI_2_ONLY && first(&[BOTH_CLIS]).is_none() => {
                Check::warning(
                    NAME,
                    format!("{region}, from {CLI_2_ONLY}; version 1 of the AWS CLI ignores this variable"),
                )
                .advice(format!("set {BOTH_CLIS} as well"))
            }
            Some(region) => Check::ok(NAME, format!("{region}, from {}", self.region_from)),
            None if options.url.is_some() => Check::skipped(NAME, "not needed: --url was given"),
            None => Check::failure(NAME, "no region set in the environment or profile")
                .advice(format!("set AWS_DEFAULT_REGION, or set region in {CONFIG_FILE}")),
        };
        let source = self.region.as_ref().map(|_| self.region_from.as_str());
        check.field("region", self.region.as_deref()).field("source", source)
    }
}

fn region_of(options: &Options, files: Option<&ProfileSet>, profile: &str) -> (Option<String>, String) {
    if let Some(region) = &options.region {
        return (Some(region.clone()), "--region".to_owned());
    }
    if let Some((region, name)) = first(&[CLI_2_ONLY, BOTH_CLIS]) {
        return (Some(region), name.to_owned());
    }
    let region = files.and_then(|files| files.get("region")).filter(|region| !region.is_empty());
    (region.map(str::to_owned), format!("profile {profile}"))
}

/// Reads a switch of the AWS SDKs: a variable, or else a key of the profile.
fn wants((variable, key): (&str, &str), files: Option<&ProfileSet>) -> bool {
    let variable = std::env::var(variable).ok().filter(|value| !value.is_empty());
    let value = variable.or_else(|| files?.get(key).map(str::to_owned));
    value.is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

fn first(names: &[&'static str]) -> Option<(String, &'static str)> {
    names.iter().find_map(|name| {
        let value = std::env::var(name).ok()?.trim().to_owned();
        (!value.is_empty()).then_some((value, *name))
    })
}

/// Returns whether it may be a part of a host's name.
fn is_region(region: &str) -> bool {
    region.len() <= 40
        && region.contains('-')
        && region.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-')
}

const FIPS: (&str, &str) = ("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint");
const DUAL_STACK: (&str, &str) = ("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint");
/// Location of the profiles for the AWS CLI and the SDK, as users write it.
pub(super) const CONFIG_FILE: &str =
    if cfg!(windows) { r"%USERPROFILE%\.aws\config" } else { "~/.aws/config" };
const CLI_2_ONLY: &str = "AWS_REGION";
const BOTH_CLIS: &str = "AWS_DEFAULT_REGION";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions() {
        assert!(is_region("eu-west-1") && is_region("us-gov-east-1") && is_region("sim-1"));
        for region in ["", "eu west", "EU-WEST-1", "eu-west-1.evil.example", "world"] {
            assert!(!is_region(region), "{region}");
        }
    }
}
