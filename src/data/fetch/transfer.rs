//! One attempt to bring a file from one address, carrying on where an earlier one ended.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Instant;

use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body, Error, Timeout};

use super::super::DataError;
use super::{FetchOptions, Progress, not_writable};

const CHUNK: usize = 1 << 16;
/// Bytes per second below which a connection counts as stalled.
const SLOWEST: f64 = 1_024.0;

/// What to bring, and to where.
pub(super) struct Transfer<'a> {
    pub(super) url: &'a str,
    pub(super) part: &'a Path,
    pub(super) name: &'a str,
    /// Bytes of the official file.
    pub(super) expected: u64,
    /// More bytes than this cannot be right.
    pub(super) limit: u64,
    pub(super) options: &'a FetchOptions,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Everything that the source has arrived: `resumed` says that some of it was there before,
    /// `known_end` that the source had told its length.
    Whole { resumed: bool, known_end: bool },
    /// It broke off; another attempt may carry on.
    Again(String),
    /// Another attempt would not help.
    GiveUp(String),
}

pub(super) fn broke_off(done: u64, total: u64) -> String {
    format!("the connection broke off after {done} of {total} bytes")
}

/// Length of a file; 0 where there is none.
pub(super) fn length(path: &Path) -> Result<u64, DataError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(not_writable(path, error)),
    }
}

/// Removes a file that may not be there.
pub(super) fn remove(path: &Path) -> Result<(), DataError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(not_writable(path, error)),
        _ => Ok(()),
    }
}

impl Transfer<'_> {
    pub(super) fn attempt(&self, progress: &mut dyn Progress) -> Result<Outcome, DataError> {
        let mut have = length(self.part)?;
        if have > self.limit {
            remove(self.part)?;
            have = 0;
        }
        let mut request = self
            .agent()
            .get(self.url)
            .header(header::ACCEPT_ENCODING, "identity");
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let response = match request.call() {
            Ok(response) => response,
            Err(error) => return Ok(self.no_answer(&error)),
        };
        match response.status() {
            StatusCode::OK => self.receive(response, 0, progress),
            StatusCode::PARTIAL_CONTENT if have > 0 => match content_range(&response) {
                Some((start, _)) if start == have => self.receive(response, have, progress),
                _ => {
                    remove(self.part)?;
                    Ok(Outcome::Again(format!(
                        "it was asked for the bytes from {have} on and sent others"
                    )))
                }
            },
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => match unsatisfied_length(&response) {
                Some(total) if total != have => {
                    remove(self.part)?;
                    Ok(Outcome::Again(format!(
                        "it has {total} bytes, but {have} had arrived before"
                    )))
                }
                _ => Ok(Outcome::Whole {
                    resumed: true,
                    known_end: true,
                }),
            },
            status => {
                let reason = format!("it answers {status}");
                let passing = status.is_server_error()
                    || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT]
                        .contains(&status);
                Ok(if passing {
                    Outcome::Again(reason)
                } else {
                    Outcome::GiveUp(reason)
                })
            }
        }
    }

    fn agent(&self) -> Agent {
        let silence = Some(self.options.stall_timeout);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("taskweave/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(self.options.connect_timeout))
            .timeout_connect(Some(self.options.connect_timeout))
            .timeout_recv_response(silence)
            .timeout_per_read(silence);
        if is_loopback(self.url) {
            config = config.proxy(None);
        }
        config.build().into()
    }

    /// Appends the body to the first `have` bytes of the part file.
    fn receive(
        &self,
        response: Response<Body>,
        have: u64,
        progress: &mut dyn Progress,
    ) -> Result<Outcome, DataError> {
        let total = match response.body().content_length() {
            Some(rest) => Some(have.saturating_add(rest)),
            None => content_range(&response).and_then(|(_, total)| total),
        };
        if let Some(total) = total.filter(|&total| total > self.limit) {
            remove(self.part)?;
            return Ok(Outcome::GiveUp(self.too_much(&format!("{total} bytes"))));
        }
        // A chunked body says itself where it ends.
        let chunked = response.headers().contains_key(header::TRANSFER_ENCODING);
        let mut file = self
            .open_part(have)
            .map_err(|error| not_writable(self.part, error))?;
        let mut body = response.into_body().into_reader();
        let mut done = have;
        let mut chunk = vec![0; CHUNK];
        let mut watch = Watch::new(have);
        let all = total.unwrap_or(self.expected);
        progress.begin(self.name, self.url, have, all);
        let broken = loop {
            if progress.interrupted() {
                return Err(DataError::Interrupted);
            }
            let count = match body.read(&mut chunk) {
                Ok(0) => break None,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => break Some(self.broken(error, done, all)),
            };
            done += count as u64;
            if done > self.limit {
                drop(file);
                remove(self.part)?;
                return Ok(Outcome::GiveUp(self.too_much("more")));
            }
            file.write_all(&chunk[..count])
                .map_err(|error| not_writable(self.part, error))?;
            progress.advance(done);
            if watch.is_too_slow(done, self.options) {
                break Some(self.stalled(done, all));
            }
        };
        if let Some(reason) = broken {
            return Ok(Outcome::Again(reason));
        }
        if total.is_some_and(|total| done < total) {
            return Ok(Outcome::Again(broke_off(done, all)));
        }
        file.sync_all()
            .map_err(|error| not_writable(self.part, error))?;
        Ok(Outcome::Whole {
            resumed: have > 0,
            known_end: total.is_some() || chunked,
        })
    }

    fn open_part(&self, have: u64) -> io::Result<File> {
        if have > 0 {
            return OpenOptions::new().append(true).open(self.part);
        }
        File::create(self.part)
    }

    fn no_answer(&self, error: &Error) -> Outcome {
        let connect = self.options.connect_timeout.as_secs_f64();
        let stall = self.options.stall_timeout.as_secs_f64();
        match error {
            Error::HostNotFound => {
                Outcome::GiveUp("the host was not found (is this machine online?)".to_owned())
            }
            Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                Outcome::GiveUp(format!("no connection within {connect} s"))
            }
            Error::Timeout(_) => Outcome::Again(format!("no answer within {stall} s")),
            Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Outcome::GiveUp("the connection was refused".to_owned())
            }
            Error::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::BrokenPipe
                ) =>
            {
                Outcome::Again("the connection broke off before an answer".to_owned())
            }
            Error::Io(error) => Outcome::GiveUp(format!("no connection: {error}")),
            Error::BadUri(_) | Error::Http(_) => Outcome::GiveUp(format!(
                "this is no address of a file ({error}); it should begin with http:// or https://"
            )),
            other => Outcome::GiveUp(other.to_string()),
        }
    }

    fn broken(&self, error: io::Error, done: u64, all: u64) -> String {
        match Error::from(error) {
            Error::Timeout(_) => self.stalled(done, all),
            Error::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                format!("{} ({error})", broke_off(done, all))
            }
            _ => broke_off(done, all),
        }
    }

    fn stalled(&self, done: u64, all: u64) -> String {
        let seconds = self.options.stall_timeout.as_secs_f64();
        format!("it stalled for {seconds} s after {done} of {all} bytes")
    }

    fn too_much(&self, what: &str) -> String {
        format!(
            "it sends {what}, and the official file has {} bytes",
            self.expected
        )
    }
}

/// Sees connections that are not silent but next to it.
struct Watch {
    since: Instant,
    done: u64,
}

impl Watch {
    fn new(done: u64) -> Self {
        Self {
            since: Instant::now(),
            done,
        }
    }

    fn is_too_slow(&mut self, done: u64, options: &FetchOptions) -> bool {
        let elapsed = self.since.elapsed();
        if elapsed < options.stall_timeout {
            return false;
        }
        let too_slow = ((done - self.done) as f64) < SLOWEST * elapsed.as_secs_f64();
        *self = Self::new(done);
        too_slow
    }
}

/// The first byte of a partial answer, and the length of the whole where it is told.
fn content_range(response: &Response<Body>) -> Option<(u64, Option<u64>)> {
    let range = header_text(response)?.strip_prefix("bytes ")?;
    let (range, total) = range.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

/// The length of the whole, in an answer that there is nothing left to send.
fn unsatisfied_length(response: &Response<Body>) -> Option<u64> {
    header_text(response)?
        .strip_prefix("bytes */")?
        .trim()
        .parse()
        .ok()
}

fn header_text(response: &Response<Body>) -> Option<&str> {
    response.headers().get(header::CONTENT_RANGE)?.to_str().ok()
}

/// Whether an address is on this machine, where no proxy leads.
fn is_loopback(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    ["127.", "localhost", "[::1]"]
        .iter()
        .any(|name| host.starts_with(name))
}
