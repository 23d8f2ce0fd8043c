//! Session documents: AWS's own and custom ones, with their parameters filled in.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::agent::Document;
use crate::api::ApiError;
use crate::config::CustomDocument;

/// The document of a StartSession without `DocumentName`.
pub(crate) const DEFAULT_DOCUMENT: &str = "SSM-SessionManagerRunShell";

/// `Parameters` of StartSession.
pub(crate) type Parameters = BTreeMap<String, Vec<String>>;

/// Returns the session that the named document runs with these parameters.
pub(crate) fn resolve(
    name: &str,
    parameters: &Parameters,
    custom: &BTreeMap<String, CustomDocument>,
) -> Result<Document, ApiError> {
    if let Some(document) = custom.get(name) {
        return resolve_custom(document, parameters);
    }
    let values = |allowed: &[Parameter]| check(allowed, parameters);
    match name {
        DEFAULT_DOCUMENT => values(&[]).map(|_| Document::Shell),
        "AWS-StartPortForwardingSession" => port(&values(&[PORT, LOCAL_PORT])?, true),
        "AWS-StartPortForwardingSessionToRemoteHost" => port(&values(&[HOST, PORT, LOCAL_PORT])?, true),
        "AWS-StartSSHSession" => port(&values(&[SSH_PORT])?, false),
        "AWS-StartInteractiveCommand" => {
            let mut values = values(&[COMMAND])?;
            Ok(Document::InteractiveCommand { command: values.remove("command").unwrap_or_default() })
        }
        "AWS-StartNonInteractiveCommand" => {
            let mut values = values(&[COMMAND, SEPARATE])?;
            let separate = values.get("separateOutputStream").is_some_and(|v| v.eq_ignore_ascii_case("true"));
            let command = values.remove("command").unwrap_or_default();
            Ok(Document::NonInteractiveCommand { command, separate_output_stream: separate })
        }
        _ => Err(ApiError::new("InvalidDocument", format!("Document with name {name} does not exist."))),
    }
}

/// One parameter of an AWS document, as the published documents define it.
struct Parameter {
    name: &'static str,
    /// `None`: must be given.
    default: Option<&'static str>,
    allowed: fn(&str) -> bool,
}

const PORT: Parameter = Parameter { name: "portNumber", default: Some("80"), allowed: |v| port_number(v, 1) };
const LOCAL_PORT: Parameter =
    Parameter { name: "localPortNumber", default: Some("0"), allowed: |v| port_number(v, 0) };
const SSH_PORT: Parameter =
    Parameter { name: "portNumber", default: Some("22"), allowed: |v| port_number(v, 1) };
const HOST: Parameter = Parameter { name: "host", default: Some("localhost"), allowed: host };
const COMMAND: Parameter = Parameter { name: "command", default: None, allowed: |_| true };
const SEPARATE: Parameter =
    Parameter { name: "separateOutputStream", default: Some("False"), allowed: boolean };

/// Every parameter's value: given or default, and as its pattern allows.
fn check(allowed: &[Parameter], given: &Parameters) -> Result<BTreeMap<&'static str, String>, ApiError> {
    let invalid = |message: String| ApiError::new("InvalidParameters", message);
    if let Some(unknown) = given.keys().find(|name| !allowed.iter().any(|p| p.name == *name)) {
        return Err(invalid(format!("Parameters [{unknown}] are not defined in the document.")));
    }
    let mut values = BTreeMap::new();
    for parameter in allowed {
        let name = parameter.name;
        let value = match given.get(name).map(Vec::as_slice) {
            Some([value]) => value.as_str(),
            Some(_) => return Err(invalid(format!("Parameter \"{name}\" must have exactly one value."))),
            None => {
                parameter.default.ok_or_else(|| invalid(format!("Parameter \"{name}\" requires a value.")))?
            }
        };
        if !(parameter.allowed)(value) {
            return Err(invalid(format!(
                "Parameter \"{name}\" has value \"{value}\" not matching its allowedPattern."
            )));
        }
        values.insert(name, value.to_owned());
    }
    Ok(values)
}

fn port(values: &BTreeMap<&str, String>, forwarding: bool) -> Result<Document, ApiError> {
    let mut properties: Map<String, Value> =
        values.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect();
    if forwarding {
        properties.insert("type".to_owned(), LOCAL_PORT_FORWARDING.into());
    }
    port_document(properties)
}

fn port_document(properties: Map<String, Value>) -> Result<Document, ApiError> {
    let text = |name: &str| properties.get(name).and_then(Value::as_str);
    let port = text("portNumber").and_then(|v| v.parse().ok());
    let port = port.ok_or_else(|| ApiError::new("InvalidParameters", "portNumber is not a port."))?;
    if text("type") == Some(LOCAL_PORT_FORWARDING) {
        let host = text("host").unwrap_or("localhost").to_owned();
        Ok(Document::PortForward { host, port, properties })
    } else {
        Ok(Document::Ssh { port, properties })
    }
}

fn resolve_custom(document: &CustomDocument, given: &Parameters) -> Result<Document, ApiError> {
    let fill = |text: &str| {
        given.iter().fold(text.to_owned(), |text, (name, values)| {
            let value = values.first().map_or("", String::as_str);
            text.replace(&format!("{{{{ {name} }}}}"), value).replace(&format!("{{{{{name}}}}}"), value)
        })
    };
    Ok(match document {
        CustomDocument::Shell => Document::Shell,
        CustomDocument::InteractiveCommand { command } => {
            Document::InteractiveCommand { command: fill(command) }
        }
        CustomDocument::NonInteractiveCommand { command, separate_output_stream } => {
            Document::NonInteractiveCommand {
                command: fill(command),
                separate_output_stream: *separate_output_stream,
            }
        }
        CustomDocument::Port { properties } => {
            let filled = properties.iter().map(|(name, value)| match value {
                Value::String(text) => (name.clone(), Value::from(fill(text))),
                other => (name.clone(), other.clone()),
            });
            port_document(filled.collect())?
        }
    })
}

fn port_number(value: &str, least: u16) -> bool {
    value.parse::<u16>().is_ok_and(|port| port >= least && port.to_string() == value)
}

fn host(value: &str) -> bool {
    value.chars().count() >= 3 && !value.chars().any(|c| ",$^&()!;'\"<>`{}[]|#=".contains(c))
}

fn boolean(value: &str) -> bool {
    matches!(value, "True" | "False" | "true" | "false")
}

/// `type` of a document that forwards a local port.
const LOCAL_PORT_FORWARDING: &str = "LocalPortForwarding";

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()])).collect()
    }

    fn resolved(name: &str, pairs: &[(&str, &str)]) -> Result<Document, ApiError> {
        resolve(name, &parameters(pairs), &BTreeMap::new())
    }

    #[test]
    fn port_forwarding_fills_in_defaults() {
        let document =
            resolved("AWS-StartPortForwardingSession", &[("portNumber", "5432")]).expect("resolves");
        let Document::PortForward { host, port, properties } = document else { panic!("{document:?}") };
        assert_eq!((host.as_str(), port), ("localhost", 5432));
        assert_eq!(
            Value::from(properties),
            serde_json::json!({ "portNumber": "5432", "localPortNumber": "0", "type": "LocalPortForwarding" })
        );
    }

    #[test]
    fn ssh_is_a_port_without_a_type() {
        let document = resolved("AWS-StartSSHSession", &[]).expect("resolves");
        let Document::Ssh { port, properties } = document else { panic!("{document:?}") };
        assert_eq!(port, 22);
        assert_eq!(Value::from(properties), serde_json::json!({ "portNumber": "22" }));
    }

    #[test]
    fn bad_parameters_are_refused() {
        for (name, pairs, kind) in [
            ("AWS-StartPortForwardingSession", vec![("portNumber", "0")], "InvalidParameters"),
            ("AWS-StartPortForwardingSession", vec![("portNumber", "65536")], "InvalidParameters"),
            ("AWS-StartPortForwardingSession", vec![("portNumber", "080")], "InvalidParameters"),
            ("AWS-StartPortForwardingSession", vec![("host", "localhost")], "InvalidParameters"),
            ("AWS-StartPortForwardingSessionToRemoteHost", vec![("host", "a;b")], "InvalidParameters"),
            ("AWS-StartInteractiveCommand", vec![], "InvalidParameters"),
            (
                "AWS-StartNonInteractiveCommand",
                vec![("command", "x"), ("separateOutputStream", "1")],
                "InvalidParameters",
            ),
            ("Nope", vec![], "InvalidDocument"),
        ] {
            assert_eq!(resolved(name, &pairs).map_err(|e| e.kind).err(), Some(kind), "{name} {pairs:?}");
        }
    }

    #[test]
    fn custom_documents_take_parameters() {
        let properties = serde_json::json!({
            "portNumber": "{{ port }}", "type": "LocalPortForwarding", "localConnectionType": "unix",
            "localUnixSocket": "/tmp/{{name}}.sock", "host": "10.0.0.1"
        });
        let Value::Object(properties) = properties else { unreachable!() };
        let custom = BTreeMap::from([("Mine".to_owned(), CustomDocument::Port { properties })]);
        let document =
            resolve("Mine", &parameters(&[("port", "81"), ("name", "x")]), &custom).expect("resolves");
        let Document::PortForward { host, port, properties } = document else { panic!("{document:?}") };
        assert_eq!((host.as_str(), port), ("10.0.0.1", 81));
        assert_eq!(properties["localUnixSocket"], "/tmp/x.sock");
    }
}
