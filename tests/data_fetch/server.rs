//! A small HTTP server on the loopback that can misbehave in the ways that servers do.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// First byte of the range asked for.
    pub(crate) from: Option<usize>,
    /// How many requests came before.
    pub(crate) number: usize,
}

/// What the server does about it.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// The bytes; a range of them where one is asked for.
    Bytes(Vec<u8>),
    /// All bytes, whatever is asked for.
    AllBytes(Vec<u8>),
    /// All bytes without a length, ending with the connection.
    Unmeasured(Vec<u8>),
    /// The bytes in chunks, without a length.
    Chunked(Vec<u8>),
    /// The range that is asked for, but only so many bytes of it; then the connection ends.
    BreakOff(Vec<u8>, usize),
    /// The same, but the connection stays and is silent.
    Stall(Vec<u8>, usize),
    /// A promise of so many bytes.
    Promise(u64),
    /// Bytes without a length and without an end.
    Endless,
    /// Another range than the one asked for.
    WrongRange(Vec<u8>),
    /// Nothing at all, for as long as the test runs.
    Silence,
    /// The connection ends without an answer.
    HangUp,
    /// Only a status.
    Status(&'static str),
    /// The file is elsewhere.
    Redirect(String),
    /// The same as another reply, but later.
    Late(Duration, Box<Reply>),
}

pub(crate) struct Server {
    address: String,
    log: Arc<Mutex<Vec<Request>>>,
    /// Silent connections end with the server.
    _end: Sender<()>,
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

impl Server {
    pub(crate) fn new(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = mpsc::channel();
        let ended = Arc::new(Mutex::new(ended));
        let handler: Arc<Handler> = Arc::new(handler);
        let shared = Arc::clone(&log);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, handler, ended) = (
                    Arc::clone(&shared),
                    Arc::clone(&handler),
                    Arc::clone(&ended),
                );
                thread::spawn(move || {
                    let Some(request) = read_request(&stream, &log) else {
                        return;
                    };
                    let hold = || drop(ended.lock().map(|ended| ended.recv()));
                    // A client that has seen enough closes its side, which is no failure here.
                    let _ = answer(&stream, &request, handler(&request), &hold);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self {
            address,
            log,
            _end: end,
        }
    }

    /// The address, with a slash at its end.
    pub(crate) fn url(&self) -> String {
        self.address.clone()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// The first bytes that were asked for, request by request.
    pub(crate) fn ranges(&self) -> Vec<Option<usize>> {
        self.requests()
            .into_iter()
            .map(|request| request.from)
            .collect()
    }
}

fn read_request(stream: &TcpStream, log: &Mutex<Vec<Request>>) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut from = None;
    for line in lines {
        let line = line.ok()?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().ok();
        }
    }
    let mut log = log.lock().ok()?;
    let number = log.len();
    log.push(Request { path, from, number });
    log.last().cloned()
}

fn answer(
    mut stream: &TcpStream,
    request: &Request,
    reply: Reply,
    hold: &dyn Fn(),
) -> std::io::Result<()> {
    match reply {
        Reply::Bytes(bytes) => {
            let length = bytes.len();
            send_range(stream, request, &bytes, length)?;
        }
        Reply::BreakOff(bytes, count) => send_range(stream, request, &bytes, count)?,
        Reply::Stall(bytes, count) => {
            send_range(stream, request, &bytes, count)?;
            hold();
        }
        Reply::AllBytes(bytes) => {
            let everything = Request {
                from: None,
                ..request.clone()
            };
            send_range(stream, &everything, &bytes, bytes.len())?;
        }
        Reply::Unmeasured(bytes) => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            stream.write_all(&bytes)?;
        }
        Reply::Chunked(bytes) => {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            )?;
            for chunk in bytes.chunks(10_000) {
                write!(stream, "{:x}\r\n", chunk.len())?;
                stream.write_all(chunk)?;
                write!(stream, "\r\n")?;
            }
            write!(stream, "0\r\n\r\n")?;
        }
        Reply::Promise(length) => {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            )?;
            stream.write_all(&[0; 1_000])?;
            hold();
        }
        Reply::Endless => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            while stream.write_all(&[0; 10_000]).is_ok() {}
        }
        Reply::WrongRange(bytes) => {
            let all = bytes.len();
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {all}\r\n\
                 Content-Range: bytes 0-{}/{all}\r\n\r\n",
                all - 1
            )?;
            stream.write_all(&bytes)?;
        }
        Reply::Silence => hold(),
        Reply::HangUp => {}
        Reply::Status(status) => {
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\nno\n")?;
        }
        Reply::Redirect(url) => {
            write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n"
            )?;
        }
        Reply::Late(pause, reply) => {
            thread::sleep(pause);
            answer(stream, request, *reply, hold)?;
        }
    }
    Ok(())
}

fn send_range(
    mut stream: &TcpStream,
    request: &Request,
    bytes: &[u8],
    count: usize,
) -> std::io::Result<()> {
    let all = bytes.len();
    let from = request.from.unwrap_or(0);
    let rest = match bytes.get(from..) {
        Some(rest) if request.from.is_none() || !rest.is_empty() => rest,
        _ => {
            return write!(
                stream,
                "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{all}\r\n\
                 Content-Length: 0\r\n\r\n"
            );
        }
    };
    if request.from.is_some() {
        write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{all}\r\n",
            all - 1
        )?;
    } else {
        write!(stream, "HTTP/1.1 200 OK\r\n")?;
    }
    write!(stream, "Content-Length: {}\r\n\r\n", rest.len())?;
    stream.write_all(&rest[..count.min(rest.len())])?;
    stream.flush()
}
