//! `SSM_PLUGIN_FORWARD`: further local ports, each with a destination.
//!
//! ```text
//! forwards    = forward *( white space forward )
//! forward     = local port ":" host ":" port
//! host        = name / IPv4 address / "[" IPv6 address "]"
//! ```

use super::destination::{Destination, DestinationError};

/// One further local port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::session) struct Forward {
    /// 0 is any free one.
    pub(super) local_port: u16,
    pub(super) destination: Destination,
}

/// What is wrong with one of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::session) enum FormError {
    #[error("SSM_PLUGIN_FORWARD: {0:?} is not <local port>:<host>:<port>, such as 15432:db.internal:5432")]
    Form(String),
    #[error("SSM_PLUGIN_FORWARD: {0:?}: {1}")]
    Destination(String, DestinationError),
    #[error("SSM_PLUGIN_FORWARD: {0:?}: local port {1} is taken by another forward")]
    Twice(String, u16),
    #[error("SSM_PLUGIN_FORWARD: more than {MAX_FORWARDS} forwards; the others are left out")]
    TooMany,
}

/// The forwards of a setting, and what is wrong with those that are left out.
pub(in crate::session) fn parse(text: &str) -> (Vec<Forward>, Vec<FormError>) {
    let (mut forwards, mut errors) = (Vec::<Forward>::new(), Vec::new());
    for word in text.split_ascii_whitespace() {
        if forwards.len() == MAX_FORWARDS {
            errors.push(FormError::TooMany);
            break;
        }
        match parse_one(word) {
            Ok(new) if new.local_port != 0 && forwards.iter().any(|old| old.local_port == new.local_port) => {
                errors.push(FormError::Twice(word.to_owned(), new.local_port));
            }
            Ok(new) => forwards.push(new),
            Err(error) => errors.push(error),
        }
    }
    (forwards, errors)
}

fn parse_one(word: &str) -> Result<Forward, FormError> {
    let shown = || word.chars().take(MAX_SHOWN).collect::<String>();
    let form = || FormError::Form(shown());
    let (local, rest) = word.split_once(':').ok_or_else(form)?;
    let (host, port) = rest.rsplit_once(':').ok_or_else(form)?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']').filter(|host| host.contains(':')).ok_or_else(form)?,
        None if host.contains(':') => return Err(form()),
        None => host,
    };
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok());
    let local_port = number(local).flatten().ok_or_else(form)?;
    let port = number(port).flatten().ok_or_else(form)?;
    let destination = Destination::new(host, port).map_err(|error| FormError::Destination(shown(), error))?;
    Ok(Forward { local_port, destination })
}

/// A listener and its sessions each.
const MAX_FORWARDS: usize = 32;
/// Characters of a bad forward that are repeated.
const MAX_SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn one(word: &str) -> Result<(u16, String, u16), String> {
        let (forwards, errors) = parse(word);
        match (forwards.as_slice(), errors.as_slice()) {
            ([forward], []) => {
                let Destination { host, port } = forward.destination.clone();
                Ok((forward.local_port, host, port))
            }
            ([], [error]) => Err(error.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn forms() {
        assert_eq!(one("15432:db.internal:5432"), Ok((15432, "db.internal".into(), 5432)));
        assert_eq!(one("0:10.0.0.7:80"), Ok((0, "10.0.0.7".into(), 80)));
        assert_eq!(one("1:[fd00::1]:65535"), Ok((1, "fd00::1".into(), 65535)));
        let (forwards, errors) = parse(" 15432:db.internal:5432\t16379:cache.internal:6379\n");
        assert_eq!((forwards.len(), errors.len()), (2, 0));
        assert_eq!(parse("  "), (vec![], vec![]));
    }

    #[test]
    fn each_mistake_has_one_line_and_the_others_count() {
        for word in [
            "x",
            "15432",
            "15432:db",
            "db.internal:5432",
            "a:db.internal:1",
            "1:db.internal:x",
            "65536:abc:1",
            "1:abc:65536",
            "+1:abc:1",
            "1:fd00::1:80",
            "1:[fd00::1:80",
            "1:[abc]:80",
            "1::80",
            "-1:abc:80",
        ] {
            let line = one(word).unwrap_err();
            assert!(line.contains(&format!("{word:?}")) && !line.contains('\n'), "{line}");
        }
        assert!(one("1:db.internal:0").unwrap_err().ends_with("port 0 is not a valid destination port"));
        let (forwards, errors) = parse("1:aaa:1 nonsense 1:bbb:2 2:b\"b:3 3:ccc:3");
        assert_eq!(forwards.iter().map(|forward| forward.local_port).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(errors.len(), 3, "{errors:?}");
        let many: String = (1..=40).map(|port| format!("{port}:aaa:1 ")).collect();
        let (forwards, errors) = parse(&many);
        assert_eq!((forwards.len(), errors), (MAX_FORWARDS, vec![FormError::TooMany]));
        let (_, errors) = parse(&"x".repeat(5000));
        assert!(errors[0].to_string().len() < 200);
    }
}
