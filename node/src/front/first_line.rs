//! The first line of a connection as people write it: `"`, `<`, `>` and UTF-8 may stand in the address, as servers written in Go take
//! them. `curl -g 'http://node:9190/api/v1/query?query=up{job="a"}'` sends such a line. Programs encode addresses, and people send
//! one request, so the others of a connection are left as they are. This knows nothing of HTTP but its first line.

use axum::serve::Listener;
use std::{
    io,
    mem::take,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// A longer line is left as it is.
const LINE_BYTES_MAX: usize = 64 << 10;

/// How much is read at once as long as there is no line.
const CHUNK_BYTES: usize = 4 << 10;

/// Connections of which the first line is read so.
pub(super) struct Lenient(pub(super) TcpListener);

impl Listener for Lenient {
    type Io = FirstLine<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, peer) = Listener::accept(&mut self.0).await;
        (FirstLine::new(stream), peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A connection.
pub(super) struct FirstLine<S> {
    stream: S,
    line: Line,
}

enum Line {
    /// What came so far.
    Reading(Vec<u8>),
    /// What is given, and how much of it was.
    Given(Vec<u8>, usize),
    Passed,
}

impl<S> FirstLine<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            line: Line::Reading(Vec::new()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstLine<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.line {
                Line::Passed => return Pin::new(&mut this.stream).poll_read(context, into),
                Line::Given(bytes, given) => {
                    let rest = &bytes[*given..];
                    let count = rest.len().min(into.remaining());
                    into.put_slice(&rest[..count]);
                    *given += count;
                    if *given == bytes.len() {
                        this.line = Line::Passed;
                    }
                    return Poll::Ready(Ok(()));
                }
                Line::Reading(bytes) => {
                    let mut chunk = [0; CHUNK_BYTES];
                    let mut chunk = ReadBuf::new(&mut chunk);
                    ready!(Pin::new(&mut this.stream).poll_read(context, &mut chunk))?;
                    let (new, before) = (chunk.filled(), bytes.len());
                    bytes.extend_from_slice(new);
                    // Who speaks another protocol learns so at once.
                    let is_http = bytes
                        .first()
                        .is_some_and(|one| one.is_ascii_graphic() || one.is_ascii_whitespace());
                    let has_ended = new.is_empty() || bytes.len() > LINE_BYTES_MAX || !is_http;
                    if bytes[before..].contains(&b'\n') {
                        this.line = Line::Given(encoded(take(bytes)), 0);
                    } else if has_ended {
                        this.line = match bytes.is_empty() {
                            true => Line::Passed,
                            false => Line::Given(take(bytes), 0),
                        };
                    }
                }
            }
        }
    }
}

/// The same bytes; in the address of a first line, what may not stand there is percent-encoded.
fn encoded(bytes: Vec<u8>) -> Vec<u8> {
    let is_wrong = |byte: &u8| matches!(byte, b'"' | b'<' | b'>' | 0x80..);
    let line = bytes.split(|byte| *byte == b'\n').next();
    let line = line.unwrap_or_default();
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return bytes;
    };
    if !target.iter().any(is_wrong) {
        return bytes;
    }
    let (start, end) = (method.len() + 1, method.len() + 1 + target.len());
    let mut all = Vec::with_capacity(bytes.len() + 64);
    all.extend_from_slice(&bytes[..start]);
    for byte in target {
        match is_wrong(byte) {
            true => all.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            false => all.push(*byte),
        }
    }
    all.extend_from_slice(&bytes[end..]);
    all
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstLine<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What a server reads of what comes in these pieces.
    async fn read(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut server = FirstLine::new(server);
        let mut all = Vec::new();
        for piece in pieces {
            client.write_all(piece).await.unwrap();
        }
        drop(client);
        server.read_to_end(&mut all).await.unwrap();
        all
    }

    #[tokio::test]
    async fn the_address_of_the_first_line_is_encoded() {
        let line = "GET /q?query=up{a=\"ä\"}>0 HTTP/1.1\r\nhost: \"x\"\r\n\r\nGET /\"";
        let expected =
            b"GET /q?query=up{a=%22%C3%A4%22}%3E0 HTTP/1.1\r\nhost: \"x\"\r\n\r\nGET /\"";
        assert_eq!(read(&[line.as_bytes()]).await, expected);
        let bytes: Vec<&[u8]> = line.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes).await, expected);
    }

    #[tokio::test]
    async fn everything_else_is_as_it_came() {
        let long = [
            &b"GET /"[..],
            &vec![b'"'; 2 * LINE_BYTES_MAX],
            b" HTTP/1.1\r\n",
        ]
        .concat();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let binary = vec![0xff; 100_000];
        // A client that waits for the answer to something else than HTTP gets it.
        let (mut client, server) = tokio::io::duplex(1 << 10);
        client.write_all(&[0x16, 3, 1]).await.unwrap();
        let mut hello = [0; 3];
        FirstLine::new(server).read_exact(&mut hello).await.unwrap();
        assert_eq!(hello, [0x16, 3, 1]);
        for bytes in [
            Vec::new(),
            b"GET \"".to_vec(),
            b"\n".to_vec(),
            preface,
            binary,
            long,
        ] {
            assert!(read(&[&bytes]).await == bytes, "{} bytes", bytes.len());
        }
    }
}
