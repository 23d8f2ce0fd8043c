//! HTTP messages of AWS's JSON protocol, as scripted gateways and tests exchange them.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::output::find;
use super::retry::uninterrupted;

/// Reads one HTTP request and returns the operation it names.
pub fn read_operation(stream: &mut TcpStream) -> std::io::Result<String> {
    let (head, _) = read_message(stream)?;
    let target = head
        .lines()
        .find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("x-amz-target")));
    Ok(target.map_or_else(|| "nameless".to_owned(), |(_, operation)| operation.trim().to_owned()))
}

/// Answers 200 with a JSON body.
pub fn write_response(stream: &mut TcpStream, body: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes())
}

/// Reads one HTTP message with a Content-Length and returns its head and body.
pub fn read_message(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head
                .to_ascii_lowercase()
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok())
                .unwrap_or(0);
            let body = end + 4;
            if bytes.len() >= body + length {
                return Ok((head, bytes[body..body + length].to_vec()));
            }
        }
        let n = uninterrupted(|| stream.read(&mut buffer))?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..n]);
    }
}
