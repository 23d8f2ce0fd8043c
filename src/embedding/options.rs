//! Access to AWS as an embedding program wants it.

use std::path::PathBuf;
use std::sync::Arc;

use aws_credential_types::provider::SharedCredentialsProvider;
use serde_json::Value;

use super::error::Error;
use crate::aws::{self, AwsContext};
use crate::link::{Config, Network, StreamHosts};
use crate::session::{self, Access, Starter, is_region, stream_host, with_network};

/// Credentials, region and endpoint, with the target of sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccessOptions {
    pub target: String,
    pub reason: Option<String>,
    pub credentials: Option<SharedCredentialsProvider>,
    pub region: Option<String>,
    pub endpoint_url: Option<String>,
    pub ca_bundle: Option<PathBuf>,
    /// The rules of the AWS CLI apply where nothing else is named.
    pub uses_environment: bool,
    pub profile: Option<String>,
}

impl AccessOptions {
    /// Access to sessions on `target`.
    pub(crate) fn new(target: String) -> AccessOptions {
        AccessOptions { target, ..AccessOptions::default() }
    }

    /// Checks what can be checked without a call.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        let invalid = |reason: &str| Err(Error::InvalidArgument(reason.to_owned()));
        if self.target.is_empty() || self.target.chars().any(char::is_control) {
            return invalid("the target is empty or contains control characters");
        }
        match &self.region {
            Some(region) if !is_region(region) => return invalid("the region is not valid"),
            None if !self.uses_environment => {
                return invalid("no region: call region(), from_env() or profile()");
            }
            _ => {}
        }
        if self.credentials.is_none() && !self.uses_environment {
            return invalid("no credentials: call credentials(), from_env() or profile()");
        }
        if self.credentials.is_some() && self.region.is_none() {
            return invalid("credentials() needs region()");
        }
        if stream_host(self.endpoint_url.as_deref(), self.region.as_deref()).is_none() {
            return invalid("the endpoint is not an http or https URL");
        }
        Ok(())
    }

    /// The request for a session.
    pub(crate) fn request(&self, document: Option<&str>, parameters: Option<Value>) -> Value {
        session::request(&self.target, document, parameters, self.reason.as_deref())
    }

    /// Starts sessions with this request. Reads the AWS CLI's files where that is requested; calls nothing yet.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub(crate) async fn starter(&self, request: Value) -> Result<Starter, Error> {
        self.check()?;
        let Access { network, aws } = self.access().await?;
        Ok(Starter { aws, network, config: Config::default(), request: Arc::new(request) })
    }

    async fn access(&self) -> Result<Access, Error> {
        let url = stream_host(self.endpoint_url.as_deref(), self.region.as_deref());
        let url = url.ok_or_else(|| Error::InvalidArgument("the endpoint is not a URL".to_owned()))?;
        let context = AwsContext {
            region: self.region.clone().unwrap_or_default(),
            endpoint: self.endpoint_url.clone(),
            target: Some(self.target.clone()),
            credentials: self.credentials.clone(),
            ..AwsContext::default()
        };
        if !self.uses_environment {
            let network = Arc::new(Network::direct(StreamHosts::default(), self.ca_bundle.clone()));
            let aws = aws::Client::new(with_network(context, &network));
            return Ok(Access { network, aws: Arc::new(aws) });
        }
        let profile = match &self.credentials {
            Some(_) => None,
            None => aws::profile_name(self.profile.clone()),
        };
        let bundle = match (&self.ca_bundle, url.scheme()) {
            (Some(bundle), _) => Some(bundle.clone()),
            (None, "wss") if self.credentials.is_none() => aws::read_ca_bundle(profile.as_deref()).await,
            (None, _) => None,
        };
        let context = AwsContext { profile, ..context };
        Access::new(StreamHosts::default(), context, bundle, async |aws| Ok::<_, Error>(aws)).await
    }
}

/// The methods of a builder about its field `access`.
macro_rules! access_options {
    ($builder:ident) => {
        impl $builder {
            /// Signs with these credentials. A provider is asked whenever the last ones expire, so pass that of the AWS SDK for
            /// long-lived sessions. Needs [`region`](Self::region).
            pub fn credentials(
                mut self,
                credentials: impl aws_credential_types::provider::ProvideCredentials + 'static,
            ) -> $builder {
                let provider = aws_credential_types::provider::SharedCredentialsProvider::new(credentials);
                self.access.credentials = Some(provider);
                self
            }

            /// Sets the region of the target.
            pub fn region(mut self, region: impl Into<String>) -> $builder {
                self.access.region = Some(region.into());
                self
            }

            /// Sets the endpoint of SSM, such as that of a VPC or of a simulator: an `http` or `https` URL.
            pub fn endpoint_url(mut self, url: impl Into<String>) -> $builder {
                self.access.endpoint_url = Some(url.into());
                self
            }

            /// Trusts the CA certificates of this PEM file instead of the system's.
            pub fn ca_bundle(mut self, path: impl Into<std::path::PathBuf>) -> $builder {
                self.access.ca_bundle = Some(path.into());
                self
            }

            /// Takes what is not named here from where the AWS CLI takes it: credentials, region and endpoint from the
            /// environment, the shared files and the metadata services; proxies and CA certificates from the environment.
            pub fn from_env(mut self) -> $builder {
                self.access.uses_environment = true;
                self
            }

            /// As [`from_env`](Self::from_env), with a profile of the shared files.
            pub fn profile(mut self, profile: impl Into<String>) -> $builder {
                self.access.profile = Some(profile.into());
                self.from_env()
            }

            /// Sets the reason that the audit log of the account shows.
            pub fn reason(mut self, reason: impl Into<String>) -> $builder {
                self.access.reason = Some(reason.into());
                self
            }
        }
    };
}

pub(crate) use access_options;

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;

    use super::*;

    #[test]
    fn nothing_is_taken_from_the_environment_unless_requested() {
        let mut options = AccessOptions::new("i-0123456789abcdef0".to_owned());
        let refused = |options: &AccessOptions| matches!(options.check(), Err(Error::InvalidArgument(_)));
        assert!(refused(&options));
        options.region = Some("eu-west-1".to_owned());
        assert!(refused(&options), "no credentials");
        let from_env = AccessOptions { uses_environment: true, region: None, ..options.clone() };
        assert_eq!(from_env.check(), Ok(()));
        options.credentials =
            Some(SharedCredentialsProvider::new(Credentials::new("A", "s", None, None, "test")));
        assert_eq!(options.check(), Ok(()));
        for (region, endpoint, target) in [
            ("eu west", "https://ssm.eu-west-1.amazonaws.com", "i-1"),
            ("eu-west-1", "ssm.eu-west-1.amazonaws.com", "i-1"),
            ("eu-west-1", "https://ssm.eu-west-1.amazonaws.com", ""),
            ("eu-west-1", "https://ssm.eu-west-1.amazonaws.com", "i-1\n"),
        ] {
            let options = AccessOptions {
                region: Some(region.to_owned()),
                endpoint_url: Some(endpoint.to_owned()),
                target: target.to_owned(),
                ..options.clone()
            };
            assert!(refused(&options), "{region} {endpoint} {target:?}");
        }
    }
}
