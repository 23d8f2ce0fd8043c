//! Quoting for a POSIX shell.

/// The words as one command line, of which a shell makes exactly these words again.
pub(crate) fn join<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// A word in single quotes, unless it needs none.
pub(crate) fn quote(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_quotes_has_them() {
        assert_eq!(join(["ls", "-l", "/etc"]), "ls -l /etc");
        assert_eq!(
            join(["printf", r"%s\n", "a b", "$c", "", "it's"]),
            r"printf '%s\n' 'a b' '$c' '' 'it'\''s'"
        );
    }
}
