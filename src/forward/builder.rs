//! Arguments of a forwarded port.

use crate::destination::Destination;
use crate::embedding::{AccessOptions, Error, access_options};
use crate::session::{EmbeddedConfig, Starter};

/// Arguments of a [`Forward`](super::Forward).
#[derive(Clone, Debug)]
#[must_use = "nothing happens before start() is called"]
pub struct ForwardBuilder {
    pub(super) access: AccessOptions,
    destination: Option<(String, u16)>,
    listen: Option<String>,
    restart: bool,
    sessions: usize,
    any_user: bool,
}

access_options!(ForwardBuilder);

impl ForwardBuilder {
    pub(super) fn new(target: String) -> ForwardBuilder {
        ForwardBuilder {
            access: AccessOptions::new(target),
            destination: None,
            listen: None,
            restart: false,
            sessions: 1,
            any_user: false,
        }
    }

    /// Sets the destination: a host, as the instance names it, and a port. `localhost` is the instance itself.
    pub fn to(mut self, host: impl Into<String>, port: u16) -> ForwardBuilder {
        self.destination = Some((host.into(), port));
        self
    }

    /// Listens on a TCP address, `host:port`; port 0 is any free one. Without it there is no listener, and connections are
    /// made by [`Forward::connect`](super::Forward::connect) alone.
    pub fn listen(mut self, address: impl ToString) -> ForwardBuilder {
        self.listen = Some(address.to_string());
        self
    }

    /// Keeps the port open when its session ends: the next connection starts another session. Without it the port ends with its
    /// session.
    pub fn restart(mut self, restart: bool) -> ForwardBuilder {
        self.restart = restart;
        self
    }

    /// Shares the connections among up to this many sessions, 1 to 8. The service limits the rate of each; one is the default.
    pub fn sessions(mut self, sessions: usize) -> ForwardBuilder {
        self.sessions = sessions;
        self
    }

    /// Lets clients of other users of this machine connect to a loopback address. Otherwise they are refused where the system
    /// reports the owner of a connection.
    pub fn any_user(mut self, any_user: bool) -> ForwardBuilder {
        self.any_user = any_user;
        self
    }

    /// The port's configuration and the sessions' start.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub(super) async fn prepare(&self) -> Result<(EmbeddedConfig, Starter), Error> {
        let config = self.config()?;
        let (host, port) = self.destination.as_ref().ok_or_else(|| invalid("no destination: call to()"))?;
        let destination = Destination::new(host, *port).map_err(invalid)?;
        let request = destination.request(&self.access.request(None, None));
        Ok((config, self.access.starter(request).await?))
    }

    fn config(&self) -> Result<EmbeddedConfig, Error> {
        if !(1..=MAX_SESSIONS).contains(&self.sessions) {
            return Err(invalid(format!("sessions is {}, but must be 1 to {MAX_SESSIONS}", self.sessions)));
        }
        let listen = self.listen.as_deref().map(|address| {
            let (host, port) = address.rsplit_once(':')?;
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            Some((host.to_owned(), port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
        });
        let listen = match listen {
            Some(None) => return Err(invalid("the address to listen on is not host:port")),
            Some(listen) => listen,
            None => None,
        };
        Ok(EmbeddedConfig {
            listen,
            restart: self.restart,
            sessions: self.sessions,
            any_user: self.any_user,
            buffer: BUFFER,
        })
    }
}

fn invalid(reason: impl ToString) -> Error {
    Error::InvalidArgument(reason.to_string())
}

/// As of the program's setting `SSM_PLUGIN_SESSIONS`.
const MAX_SESSIONS: usize = 8;
/// Bytes of memory that may wait for one slow reader, as the program's default of `SSM_PLUGIN_BUFFER`.
const BUFFER: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn addresses_and_bounds() {
        let builder = ForwardBuilder::new("i-1".to_owned()).to("db.internal", 5432);
        let listen = |address: &str| builder.clone().listen(address).config().map(|config| config.listen);
        assert_eq!(listen("127.0.0.1:0"), Ok(Some(("127.0.0.1".to_owned(), 0))));
        assert_eq!(listen("[::1]:80"), Ok(Some(("::1".to_owned(), 80))));
        assert_eq!(listen("localhost:80"), Ok(Some(("localhost".to_owned(), 80))));
        for address in ["", "80", ":80", "localhost", "localhost:65536", "localhost:x"] {
            assert!(matches!(listen(address), Err(Error::InvalidArgument(_))), "{address:?}");
        }
        for sessions in [0, 9] {
            assert!(builder.clone().sessions(sessions).config().is_err());
        }
        assert_eq!(BUFFER, Settings::default().buffer);
    }
}
