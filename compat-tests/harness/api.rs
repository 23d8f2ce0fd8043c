//! StartSession by hand, and the arguments that the AWS CLI makes of its answer.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

use serde_json::{Value, json};

use super::gateway::Gateway;
use super::http::read_message;
use super::{PATIENCE, REGION, TARGET, World};

/// A started session: what the AWS CLI passes on to the plugin.
#[derive(Clone, Debug)]
pub struct Started {
    /// StartSession's answer.
    pub response: Value,
    /// StartSession's request.
    pub request: Value,
    /// The SSM endpoint.
    pub endpoint: String,
}

impl Started {
    /// A session of a scripted gateway.
    pub fn of(gateway: &Gateway) -> Started {
        Started {
            response: gateway.response(),
            request: json!({"Target": TARGET}),
            endpoint: gateway.endpoint(),
        }
    }

    /// Starts a session at the simulator.
    #[track_caller]
    pub fn at(endpoint: &str, document: Option<&str>, parameters: Value) -> Started {
        let mut request = json!({"Target": TARGET});
        if let Some(document) = document {
            request["DocumentName"] = json!(document);
            request["Parameters"] = parameters;
        }
        let response = call(endpoint, "AmazonSSM.StartSession", &request);
        assert!(response["TokenValue"].is_string(), "StartSession answered {response}");
        Started { response, request, endpoint: endpoint.to_owned() }
    }

    /// Starts a port forwarding session to `port` of the instance, listening on `local_port` (0: any).
    #[track_caller]
    pub fn port(endpoint: &str, port: u16, local_port: u16) -> Started {
        let parameters =
            json!({"portNumber": [port.to_string()], "localPortNumber": [local_port.to_string()]});
        Started::at(endpoint, Some("AWS-StartPortForwardingSession"), parameters)
    }

    /// The session's id.
    pub fn id(&self) -> &str {
        self.response["SessionId"].as_str().unwrap_or_default()
    }

    /// The plugin's command as the AWS CLI 1 of today makes it: six words, the answer in the environment.
    pub fn command(&self, world: &World) -> Command {
        let mut command = world.plugin();
        command.env("AWS_SSM_START_SESSION_RESPONSE", self.response.to_string());
        command.arg("AWS_SSM_START_SESSION_RESPONSE");
        self.rest(&mut command);
        command
    }

    /// The plugin's command with the answer among the arguments, as older CLIs and `ecs execute-command` do.
    pub fn command_with_json(&self, world: &World) -> Command {
        let mut command = world.plugin();
        command.arg(self.response.to_string());
        self.rest(&mut command);
        command
    }

    fn rest(&self, command: &mut Command) {
        command.args([REGION, "StartSession", "", &self.request.to_string(), &self.endpoint]);
    }
}

/// A well-formed signature by an unknown key: the simulator checks only its form, unless configured otherwise.
const SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/ssm/aws4_request, \
    SignedHeaders=host;x-amz-date, Signature=0000000000000000000000000000000000000000000000000000000000000000";

/// One call of AWS's JSON protocol.
#[track_caller]
pub fn call(endpoint: &str, operation: &str, request: &Value) -> Value {
    let address = endpoint.strip_prefix("http://").expect("a plain endpoint");
    let mut stream = TcpStream::connect(address).expect("connect to the endpoint");
    stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
    let body = request.to_string();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: {operation}\r\nAuthorization: {SIGNATURE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("write request");
    stream.write_all(body.as_bytes()).expect("write request");
    let (_, answer) = read_message(&mut stream).expect("read answer");
    serde_json::from_slice(&answer).unwrap_or_else(|error| {
        panic!("{operation} answered no JSON ({error}): {}", String::from_utf8_lossy(&answer))
    })
}
