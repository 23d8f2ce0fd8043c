//! `SSM_PLUGIN_FORWARD`: additional local ports, each with a destination.
//!
//! ```text
//! forwards    = forward *( ( white space / "," ) forward )
//! forward     = [ bind ":" ] local port ":" host ":" port
//! bind, host  = name / IPv4 address / "[" IPv6 address "]"
//! bind        = "*"                                           ; all addresses of this machine
//! ```

use super::warning::limited;
use crate::destination::{Destination, DestinationError};
use crate::printable::beginning;

/// An additional local port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    /// The address to listen on; `None` for that of all forwarded ports.
    pub bind: Option<String>,
    /// 0 is any free one.
    pub local_port: u16,
    pub destination: Destination,
}

/// The value of the setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forwards {
    pub list: Vec<Forward>,
    /// One line for each forward that is left out; after some, their number.
    pub mistakes: Vec<String>,
}

impl Forwards {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// A forward that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum FormError {
    #[error("SSM_PLUGIN_FORWARD: {0:?} is not [BIND:]PORT:HOST:HOSTPORT, such as 15432:db.internal:5432")]
    Form(String),
    #[error("SSM_PLUGIN_FORWARD: {0:?}: {1}")]
    Destination(String, DestinationError),
    #[error("SSM_PLUGIN_FORWARD: {0:?}: local port {1} is used by another forward")]
    Twice(String, u16),
    #[error("SSM_PLUGIN_FORWARD: more than {MAX_FORWARDS} forwards; the rest are ignored")]
    TooMany,
}

/// Reads the forwards of a setting.
pub(super) fn parse(text: &str) -> Forwards {
    let (list, mistakes) = read(text);
    Forwards {
        list,
        mistakes: limited("SSM_PLUGIN_FORWARD: ", mistakes.iter().map(ToString::to_string).collect()),
    }
}

fn read(text: &str) -> (Vec<Forward>, Vec<FormError>) {
    let (mut forwards, mut errors) = (Vec::<Forward>::new(), Vec::new());
    if text.eq_ignore_ascii_case(NONE) {
        return (forwards, errors);
    }
    let words = text.split(|letter: char| letter == ',' || letter.is_ascii_whitespace());
    for word in words.filter(|word| !word.is_empty()) {
        if forwards.len() == MAX_FORWARDS {
            errors.push(FormError::TooMany);
            break;
        }
        match parse_one(word) {
            Ok(new) if forwards.iter().any(|old| is_same_port(old, &new)) => {
                errors.push(FormError::Twice(beginning(word), new.local_port));
            }
            Ok(new) => forwards.push(new),
            Err(error) => errors.push(error),
        }
    }
    (forwards, errors)
}

/// Returns whether two forwards listen on one port of the same address.
fn is_same_port(one: &Forward, other: &Forward) -> bool {
    one.local_port != 0 && one.local_port == other.local_port && one.bind == other.bind
}

fn parse_one(word: &str) -> Result<Forward, FormError> {
    let form = || FormError::Form(beginning(word));
    let parts = parts(word).ok_or_else(form)?;
    let (bind, local, host, port) = match parts.as_slice() {
        [local, host, port] => (None, local, host, port),
        [bind, local, host, port] => (Some(*bind), local, host, port),
        _ => return Err(form()),
    };
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok());
    let local_port = number(local).flatten().ok_or_else(form)?;
    let port = number(port).flatten().ok_or_else(form)?;
    let bind = match bind {
        // As in ssh.
        Some("" | "*") => Some(ALL_ADDRESSES.to_owned()),
        bind => bind.map(str::to_owned),
    };
    let destination =
        Destination::new(host, port).map_err(|error| FormError::Destination(beginning(word), error))?;
    Ok(Forward { bind, local_port, destination })
}

/// The parts between colons, without the brackets around IPv6 addresses. `None` for a bracket without its pair.
fn parts(word: &str) -> Option<Vec<&str>> {
    let (mut parts, mut rest) = (Vec::new(), word);
    loop {
        let (part, after) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']').filter(|(address, _)| address.contains(':'))?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        parts.push(part);
        if after.is_empty() {
            return Some(parts);
        }
        rest = after.strip_prefix(':')?;
    }
}

/// The value for having none, where another place has some.
pub(super) const NONE: &str = "none";
const ALL_ADDRESSES: &str = "0.0.0.0";
/// A listener and its sessions each.
const MAX_FORWARDS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn one(word: &str) -> Result<(u16, String, u16), String> {
        let (forwards, errors) = read(word);
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
        let (forwards, errors) = read(" 15432:db.internal:5432\t16379:cache.internal:6379\n");
        assert_eq!((forwards.len(), errors.len()), (2, 0));
        assert_eq!(read("  "), (vec![], vec![]));
        assert_eq!(read("none"), (vec![], vec![]));
    }

    #[test]
    fn a_bind_address_and_commas_as_in_ssh() {
        let list = parse("127.0.0.2:1:abc:1, [::1]:1:abc:2,*:1:abc:3\t:2:abc:4,").list;
        let binds: Vec<_> =
            list.iter().map(|forward| (forward.bind.as_deref(), forward.local_port)).collect();
        let expected = [(Some("127.0.0.2"), 1), (Some("::1"), 1), (Some("0.0.0.0"), 1), (Some("0.0.0.0"), 2)];
        assert_eq!(binds, expected);
        assert_eq!(parse("1:abc:1 127.0.0.2:1:abc:1 127.0.0.2:1:abc:2").mistakes.len(), 1);
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
        let (forwards, errors) = read("1:aaa:1 nonsense 1:bbb:2 2:b\"b:3 3:ccc:3");
        assert_eq!(forwards.iter().map(|forward| forward.local_port).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(errors.len(), 3, "{errors:?}");
        let many: String = (1..=40).map(|port| format!("{port}:aaa:1 ")).collect();
        let (forwards, errors) = read(&many);
        assert_eq!((forwards.len(), errors), (MAX_FORWARDS, vec![FormError::TooMany]));
        let (_, errors) = read(&"x".repeat(5000));
        assert!(errors[0].to_string().len() < 200);
        let mistakes = parse(&"20000:abc:80,".repeat(11_000)).mistakes;
        assert_eq!(mistakes.len(), 11);
        assert!(mistakes[10] == "SSM_PLUGIN_FORWARD: 10989 more mistakes", "{}", mistakes[10]);
    }
}
