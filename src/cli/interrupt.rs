//! Ctrl-C: a training run ends between two steps; anything else ends after a moment of grace.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::story::tell;

const INTERRUPTED: i32 = 130;
const GRACE: Duration = Duration::from_secs(2);

static REQUESTED: AtomicBool = AtomicBool::new(false);
static ADVICE: Mutex<Option<String>> = Mutex::new(None);

/// Begins to listen. Where the system has no such signal, the program ends as it always would.
pub(super) fn watch() {
    let _ = ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED);
        }
        thread::spawn(|| {
            thread::sleep(GRACE);
            tell!("taskweave: {}", message());
            std::process::exit(INTERRUPTED);
        });
    });
}

/// Whether the person at the terminal asked to stop.
pub(super) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// From now on, tells at an interruption by which command the work goes on.
pub(super) fn advise(command: String) {
    if let Ok(mut advice) = ADVICE.lock() {
        *advice = Some(command);
    }
}

/// What is said at an interruption.
pub(super) fn message() -> String {
    match ADVICE.lock().ok().and_then(|advice| advice.clone()) {
        Some(command) => format!("interrupted; go on with: {command}"),
        None => "interrupted".to_owned(),
    }
}
