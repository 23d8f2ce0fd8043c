//! `--parameters`, in the two forms of the AWS CLI: JSON, and `name=value,name=value`.

use serde_json::{Map, Value};

use crate::printable;

/// The document's parameters as StartSession takes them: a list of texts for each name.
///
/// ```text
/// parameters = JSON object / item *( "," item )
/// item       = name "=" value / value        ; another value of the name before it
/// value      = text / "[" text *( "," text ) "]" / quoted text
/// ```
///
/// # Errors
/// A phrase about what is wrong.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return from_json(text);
    }
    let mut parameters = Map::new();
    let mut last: Option<String> = None;
    for item in split(text)? {
        let (name, value) = match item.split_once('=') {
            Some((name, value)) if is_name(name) => (name.to_owned(), value),
            _ => (last.clone().ok_or_else(|| form(text))?, item.as_str()),
        };
        let values = parameters.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = values {
            values.extend(list(value)?.into_iter().map(Value::from));
        }
        last = Some(name);
    }
    Ok(Value::Object(parameters))
}

fn from_json(text: &str) -> Result<Value, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("--parameters: {error}; {JSON_FORM}"))?;
    let mut parameters = Map::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        let values = match value {
            Value::String(text) => vec![Value::from(text.as_str())],
            Value::Array(values) if values.iter().all(Value::is_string) => values.clone(),
            _ => {
                return Err(format!(
                    "--parameters: the value of {name} is not a string or a list of strings; {JSON_FORM}"
                ));
            }
        };
        parameters.insert(name.clone(), Value::Array(values));
    }
    Ok(Value::Object(parameters))
}

/// The values of one item, without quotes.
fn list(value: &str) -> Result<Vec<String>, String> {
    match value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => Ok(split(inner)?.iter().map(|value| unquoted(value.trim()).to_owned()).collect()),
        None => Ok(vec![unquoted(value).to_owned()]),
    }
}

fn unquoted(value: &str) -> &str {
    let within = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

/// Splits at commas that are in neither quotes nor brackets.
fn split(text: &str) -> Result<Vec<String>, String> {
    let (mut items, mut item, mut quote, mut depth) = (Vec::new(), String::new(), None, 0u32);
    for char in text.chars() {
        match (quote, char) {
            (Some(open), _) if char == open => quote = None,
            (None, '"' | '\'') => quote = Some(char),
            (None, '[') => depth += 1,
            (None, ']') => depth = depth.checked_sub(1).ok_or_else(|| form(text))?,
            (None, ',') if depth == 0 => {
                items.push(std::mem::take(&mut item));
                continue;
            }
            _ => {}
        }
        item.push(char);
    }
    if quote.is_some() || depth > 0 {
        return Err(form(text));
    }
    items.push(item);
    Ok(items)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_' || char == '-')
}

fn form(text: &str) -> String {
    format!("--parameters {:?} is neither name=value,name=value nor JSON", printable::beginning(text))
}

/// JSON that StartSession takes, for people.
const JSON_FORM: &str = r#"use JSON such as {"portNumber":["80"]}"#;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_of_the_aws_cli() {
        for (text, expected) in [
            ("portNumber=22", json!({"portNumber": ["22"]})),
            ("portNumber=[\"22\"]", json!({"portNumber": ["22"]})),
            ("host=db.internal,portNumber=5432", json!({"host": ["db.internal"], "portNumber": ["5432"]})),
            ("portNumber='22',localPortNumber='0'", json!({"portNumber": ["22"], "localPortNumber": ["0"]})),
            ("command=\"echo a, b=c\"", json!({"command": ["echo a, b=c"]})),
            ("x=1,2,3,y=4", json!({"x": ["1", "2", "3"], "y": ["4"]})),
            ("command=ls -l --color=never", json!({"command": ["ls -l --color=never"]})),
            (r#"{"portNumber":["22"],"host":"db"}"#, json!({"portNumber": ["22"], "host": ["db"]})),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for text in ["x", "x,y=1", "=1", "x=[1", "x=1]", "x='1", "{", r#"{"x":1}"#, r#"{"x":[1]}"#] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("--parameters") && !error.contains('\n'), "{text}: {error}");
        }
    }
}
