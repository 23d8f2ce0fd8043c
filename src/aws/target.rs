//! Forms of a target's name.

/// A target as users name it.
///
/// | form | meaning |
/// |---|---|
/// | `i-…`, `mi-…`, `ecs:…` | an id, which StartSession takes as it is |
/// | `tag:KEY=VALUE` | the instance with that tag |
/// | anything else | the instance with that name |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetName<'a> {
    Id(&'a str),
    Tag(&'a str, &'a str),
    Name(&'a str),
}

/// The form `tag:` without a key, a value or the sign between them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid tag")]
pub(crate) struct InvalidTag(String);

impl InvalidTag {
    /// The next step to take.
    pub(crate) const ADVICE: &str = "use tag:KEY=VALUE";
}

impl<'a> TargetName<'a> {
    /// Recognizes the form.
    ///
    /// # Errors
    /// When it is a tag without a key or a value.
    pub(crate) fn parse(text: &'a str) -> Result<TargetName<'a>, InvalidTag> {
        if ["i-", "mi-", "ecs:"].iter().any(|prefix| text.starts_with(prefix)) {
            return Ok(TargetName::Id(text));
        }
        let Some(tag) = text.strip_prefix("tag:") else { return Ok(TargetName::Name(text)) };
        match tag.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok(TargetName::Tag(key, value)),
            _ => Err(InvalidTag(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for id in ["i-0123", "mi-0123", "ecs:c_t_r"] {
            assert_eq!(TargetName::parse(id), Ok(TargetName::Id(id)));
        }
        assert_eq!(TargetName::parse("web-1"), Ok(TargetName::Name("web-1")));
        assert_eq!(TargetName::parse("tag:Env=a=b"), Ok(TargetName::Tag("Env", "a=b")));
        for text in ["tag:", "tag:Env", "tag:=x", "tag:Env="] {
            assert_eq!(TargetName::parse(text), Err(InvalidTag(text.to_owned())));
        }
    }
}
