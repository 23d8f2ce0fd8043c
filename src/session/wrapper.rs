//! The request for a remote command: its document, and the shell that starts it.

use serde_json::{Value, json};

use crate::quote;

/// AWS's session document for commands without a terminal.
pub(crate) const COMMAND_DOCUMENT: &str = "AWS-StartNonInteractiveCommand";

/// The parameters of [`COMMAND_DOCUMENT`] for a command. `mark`: stands before its status where the agent sends none.
pub(crate) fn command_parameters(mark: &str, words: &[&str]) -> Value {
    json!({ "command": [command_line(mark, words)], "separateOutputStream": ["True"] })
}

/// The document splits it as a shell does.
fn command_line(mark: &str, words: &[&str]) -> String {
    quote::join(["sh", "-c", WRAPPER, "sh", mark].into_iter().chain(words.iter().copied()))
}

/// Replaces itself by the program: status 127 when there is none, 126 when it cannot be run. Where both streams are one
/// file, the agent reports no status: then it waits for the program and prints it.
const WRAPPER: &str = r#"m=$1; shift; if [ /dev/fd/1 -ef /dev/fd/3 ] 3>&2 2>/dev/null; then "$@"; printf '%s>%d;' "$m" $?; else exec "$@"; fi"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_argument_stays_one() {
        let line = command_line("mark", &["printf", r"%s\n", "a b", "$c"]);
        assert!(line.starts_with("sh -c 'm=$1; "), "{line}");
        assert!(line.ends_with(r" sh mark printf '%s\n' 'a b' '$c'"), "{line}");
    }
}
