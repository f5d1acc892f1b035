//! One HTTP/1.1 request over a fresh connection: enough for a demo and a probe.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

/// Who sends, unless the request says otherwise.
pub(crate) const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const LIMIT: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case, values as they came (bytes that are not text replaced).
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of the first field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// `GET path`, from this machine's usual address.
pub(crate) fn get(to: SocketAddr, path: &str) -> Result<Response> {
    get_as(LOCALHOST, to, path, &[])
}

/// `GET path` as the client at `from`, with more header fields.
pub(crate) fn get_as(
    from: IpAddr,
    to: SocketAddr,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<Response> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::new(from, 0))
        .with_context(|| format!("this machine cannot send from {from}"))?;
    connect(&socket, &to).with_context(|| format!("cannot connect to {to}"))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT))?;
    let more: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n{more}\r\n")?;
    // Envoy closes a connection some time after the answer, so its end is looked for in
    // the answer itself where that says.
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let length = stream.read(&mut piece).context("the answer was cut off")?;
        bytes.extend_from_slice(piece.get(..length).unwrap_or_default());
        if length == 0 || is_complete(&bytes) {
            return parse(&bytes);
        }
    }
}

/// Whether an answer that tells its length is here as a whole.
fn is_complete(bytes: &[u8]) -> bool {
    let Ok(response) = parse(bytes) else { return false };
    match response.field("content-length").map(str::parse::<usize>) {
        Some(length) => length.is_ok_and(|length| response.body.len() >= length),
        // Chunks that are not all here are an error of `parse`.
        None => response.field("transfer-encoding").is_some(),
    }
}

fn parse(bytes: &[u8]) -> Result<Response> {
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("the answer has no complete header")?;
    let (head, body) = bytes.split_at(end);
    let head = String::from_utf8_lossy(head).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .context("the answer has no status")?;
    let fields: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let body = body.get(4..).unwrap_or_default();
    let is_chunked = fields
        .iter()
        .any(|(name, value)| name == "transfer-encoding" && value.eq_ignore_ascii_case("chunked"));
    let body = if is_chunked { join_chunks(body)? } else { body.to_vec() };
    Ok(Response { status, fields, body })
}

fn join_chunks(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n").context("a chunk's size")?;
        let (size, after) = rest.split_at(end);
        let size = std::str::from_utf8(size)?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        let Some(chunk) = after.get(2..size.saturating_add(2)) else { bail!("a chunk is cut off") };
        body.extend_from_slice(chunk);
        rest = after.get(size.saturating_add(4)..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_with_and_without_chunks_are_read() {
        let cases = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "hi"),
            ("HTTP/1.1 429 Too Many Requests\r\n\r\n", 429, ""),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n",
                200,
                "hi0123456789",
            ),
        ];
        for (text, status, body) in cases {
            let response = parse(text.as_bytes()).unwrap();
            assert_eq!((response.status, response.body), (status, body.as_bytes().to_vec()));
        }
    }

    #[test]
    fn answers_that_are_cut_off_are_errors() {
        let cases = [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhi",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nhi",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",
        ];
        for text in cases {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_answer_is_complete_when_it_says_so_itself() {
        let cases = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\nuntil the end", false),
            ("HTTP/1.1 200", false),
        ];
        for (text, complete) in cases {
            assert_eq!(is_complete(text.as_bytes()), complete, "{text:?}");
        }
    }

    #[test]
    fn field_names_are_found_in_any_case() {
        let response = parse(b"HTTP/1.1 200 OK\r\nCache-Status: edgeweir; hit\r\n\r\n").unwrap();
        assert_eq!(response.field("cache-status"), Some("edgeweir; hit"));
        assert_eq!(response.field("age"), None);
    }
}
