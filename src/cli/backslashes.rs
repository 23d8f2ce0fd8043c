//! JSON arguments with a backslash before each quote.
//!
//! Command lines for Windows escape quotes, such as the ProxyCommand that AWS documents for SageMaker. PowerShell before
//! 7.3 passed the argument on as it was, and the C runtime of the program that it started removed the backslashes; since 7.3
//! it escapes what it passes on, so that they arrive.

use std::borrow::Cow;

/// The argument without the backslashes before quotes, as the rules of Windows' command lines have it: of 2n + 1
/// backslashes before a quote, n stay. Only where it is an object whose first quote has one, which is not JSON.
pub(super) fn removed(word: &str) -> Cow<'_, str> {
    let is_escaped =
        word.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with("\\\""));
    if !is_escaped {
        return word.into();
    }
    let mut text = String::with_capacity(word.len());
    let mut backslashes = 0;
    for character in word.chars() {
        match character {
            '\\' => {
                backslashes += 1;
                continue;
            }
            '"' => backslashes /= 2,
            _ => {}
        }
        text.extend(std::iter::repeat_n('\\', std::mem::take(&mut backslashes)));
        text.push(character);
    }
    text.extend(std::iter::repeat_n('\\', backslashes));
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_quote_loses_one() {
        for (word, expected) in [
            (r#"{\"a\":\"b\"}"#, r#"{"a":"b"}"#),
            (r#" { \"a\" : 1 } "#, r#" { "a" : 1 } "#),
            // Other escapes of JSON stay: of a character, of a quote, of a backslash.
            (r#"{\"a\":\"b\u0026c\"}"#, r#"{"a":"b\u0026c"}"#),
            (r#"{\"a\":\"b\\\"c\"}"#, r#"{"a":"b\"c"}"#),
            (r#"{\"a\":\"b\\\\\"}"#, r#"{"a":"b\\"}"#),
            (r#"{\"a\":1\"#, r#"{"a":1\"#),
        ] {
            assert_eq!(removed(word), expected, "{word}");
        }
    }

    #[test]
    fn json_stays() {
        for word in [r#"{"a":"\"b\""}"#, "{}", "", "{", r#"\"a\""#, r#"[\"a\"]"#, r"{\a}"] {
            assert!(matches!(removed(word), Cow::Borrowed(_)), "{word}");
        }
    }
}
