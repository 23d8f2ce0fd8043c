//! The StartSession response: three strings out of a JSON object whose keys may have any case.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use super::error::CliError;
use crate::printable::is_printable;
use crate::secret::Secret;

/// The fields a session needs.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) session_id: String,
    pub(super) stream_url: String,
    pub(super) token: Secret,
}

/// Reads `text`. Keys in any case (`aws ecs execute-command` writes `tokenValue`), unknown keys and
/// nulls are ignored, the last of several equal keys counts. serde's own messages quote values and
/// are therefore never passed on.
pub(super) fn parse(text: &str) -> Result<Response, CliError> {
    let raw: Raw = serde_json::from_str(text)
        .map_err(|err| CliError::NotJson { line: err.line().max(1), column: err.column().max(1) })?;
    let token = raw.token.string("TokenValue")?;
    Ok(Response {
        session_id: printable(not_empty(raw.session_id.string("SessionId")?, "SessionId")?, "SessionId")?,
        stream_url: not_empty(raw.stream_url.string("StreamUrl")?, "StreamUrl")?,
        token: Secret::from(token),
    })
}

fn not_empty(text: Zeroizing<String>, name: &'static str) -> Result<String, CliError> {
    if text.is_empty() { Err(CliError::MissingField(name)) } else { Ok(text.to_string()) }
}

/// The id stands in the lines that callers parse: it must not add lines to them.
fn printable(text: String, name: &'static str) -> Result<String, CliError> {
    if is_printable(&text) { Ok(text) } else { Err(CliError::ControlCharacters(name)) }
}

#[derive(Default)]
struct Raw {
    session_id: Field,
    stream_url: Field,
    token: Field,
}

#[derive(Default)]
enum Field {
    #[default]
    Missing,
    Other,
    Text(Zeroizing<String>),
}

impl Field {
    fn string(self, name: &'static str) -> Result<Zeroizing<String>, CliError> {
        match self {
            Field::Missing => Err(CliError::MissingField(name)),
            Field::Other => Err(CliError::NotAString(name)),
            Field::Text(text) => Ok(text),
        }
    }

    /// A null leaves what an earlier key of the same name gave.
    fn set(&mut self, value: Field) {
        if !matches!(value, Field::Missing) {
            *self = value;
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_map(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut raw = Raw::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.to_ascii_lowercase().as_str() {
                "sessionid" => raw.session_id.set(map.next_value()?),
                "streamurl" => raw.stream_url.set(map.next_value()?),
                "tokenvalue" => raw.token.set(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(raw)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Field, E> {
        Ok(Field::Text(Zeroizing::new(text)))
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Missing)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }
}
