//! How to fetch, and who looks on.

use std::time::Duration;

/// How patient to be, and where to look first.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// An address to try before all others. It is laid out like a data folder: `mnist.npz`,
    /// `fashion-mnist/train-images-idx3-ubyte.gz`, …; files in its root do as well.
    pub mirror: Option<String>,
    /// How often to ask one source, when it breaks off or falls silent.
    pub attempts: u32,
    /// Before the second attempt; before the third twice as long, and so on.
    pub pause: Duration,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for the next bytes.
    pub stall_timeout: Duration,
}

impl Default for FetchOptions {
    /// No mirror; four attempts, a second apart and growing; 15 s for a connection, 30 s for bytes.
    fn default() -> Self {
        Self {
            mirror: None,
            attempts: 4,
            pause: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

impl FetchOptions {
    /// The default, with the mirror of the environment variable `TASKWEAVE_MIRROR`.
    pub fn from_env() -> Self {
        let mirror = std::env::var("TASKWEAVE_MIRROR");
        Self {
            mirror: mirror.ok().filter(|url| !url.trim().is_empty()),
            ..Self::default()
        }
    }
}

/// An onlooker of downloads.
pub trait Progress {
    /// Something worth telling: a source that failed, another attempt, waiting.
    fn note(&mut self, line: &str);

    /// Bytes of a file begin to arrive, `done` of them being there from before; `total` is how many
    /// there will be.
    fn begin(&mut self, file: &str, url: &str, done: u64, total: u64);

    /// So many bytes are there now.
    fn advance(&mut self, done: u64);

    /// No more bytes arrive, for better or worse. May come without a [`begin`](Self::begin).
    fn end(&mut self);

    /// Whether to stop.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Nobody looks on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn note(&mut self, _line: &str) {}
    fn begin(&mut self, _file: &str, _url: &str, _done: u64, _total: u64) {}
    fn advance(&mut self, _done: u64) {}
    fn end(&mut self) {}
}
