//! Notices a changed configuration by its contents: kubelet swaps a link under a mounted ConfigMap, so neither times nor
//! file-system events can be trusted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;

use super::decode::{Elsewhere, Loaded, Loader, Surroundings as _, System, read, read_injected, read_webhook};
use super::{Config, Webhook};
use crate::injection::PROFILE_VARIABLE;
use crate::yaml::Problem;

/// What a look at the files found.
#[derive(Debug)]
pub enum Reload<C = Config> {
    /// Another configuration that is good.
    Good(Box<Loaded<C>>),
    /// Another one that is not; the last good one stays.
    Bad(Vec<Problem>),
}

/// Watches one file and the files that it names.
pub struct Watcher<C = Config> {
    path: PathBuf,
    load: Loader<C>,
    /// Named by the last good configuration.
    files: Vec<PathBuf>,
    seen: Vec<u8>,
    /// What was wrong with the files at the last look.
    wrong: Option<Vec<Problem>>,
    interval: Duration,
}

impl<C> Watcher<C> {
    /// Looks every `interval`, beginning with what is there now.
    #[must_use]
    pub fn new(path: &Path, files: Vec<PathBuf>, interval: Duration, load: Loader<C>) -> Self {
        let mut watcher = Self { path: path.to_owned(), load, files, seen: Vec::new(), wrong: None, interval };
        watcher.seen = watcher.digest();
        watcher
    }

    /// The last good configuration could not be put in place, so it is given again at the next look.
    pub fn retry(&mut self) {
        self.wrong = Some(Vec::new());
    }

    /// Waits for the next change.
    pub async fn next(&mut self) -> Reload<C> {
        loop {
            tokio::time::sleep(self.interval).await;
            let digest = self.digest();
            // What a wrong file names may come later than the file, so it is read again until it is good.
            if digest == self.seen && self.wrong.is_none() {
                continue;
            }
            match (self.load)(&self.path) {
                Err(problems) => {
                    // Each state of the files is told once.
                    let told = digest == self.seen && self.wrong.as_ref() == Some(&problems);
                    self.seen = digest;
                    if !told {
                        self.wrong = Some(problems.clone());
                        return Reload::Bad(problems);
                    }
                }
                Ok(loaded) => {
                    self.wrong = None;
                    self.files.clone_from(&loaded.files);
                    self.seen = self.digest();
                    return Reload::Good(Box::new(loaded));
                }
            }
        }
    }

    fn digest(&self) -> Vec<u8> {
        let mut context = digest::Context::new(&digest::SHA256);
        for path in std::iter::once(&self.path).chain(&self.files) {
            match std::fs::read(path) {
                Ok(bytes) => {
                    context.update(&[1]);
                    context.update(&bytes.len().to_le_bytes());
                    context.update(&bytes);
                }
                // A folder is what lies in it; the files that count are named one by one.
                Err(_) => match System.folder(path) {
                    Ok(mut names) => {
                        names.sort_unstable();
                        context.update(&[2]);
                        context.update(names.join("/").as_bytes());
                    }
                    Err(_) => context.update(&[0]),
                },
            }
        }
        context.finish().as_ref().to_vec()
    }
}

/// Reads a file from the disk.
///
/// # Errors
/// Every problem with it, the disk's included.
pub fn load(path: &Path) -> Result<Loaded, Vec<Problem>> {
    read(&text(path)?, &System)
}

/// The same for the file of the webhook.
///
/// # Errors
/// As [`load`].
pub fn load_webhook(path: &Path) -> Result<Loaded<Webhook>, Vec<Problem>> {
    read_webhook(&text(path)?, &System)
}

/// The same for the webhook's file on another machine, whose own files are not looked for.
///
/// # Errors
/// As [`load`].
pub fn load_profiles(path: &Path) -> Result<Loaded<Webhook>, Vec<Problem>> {
    read_webhook(&text(path)?, &Elsewhere)
}

/// What an injected sidecar was given in its environment, under what the namespace adds in a file, if there is one.
///
/// # Errors
/// As [`load`].
pub fn load_injected(path: &Path) -> Result<Loaded, Vec<Problem>> {
    let profile = System.variable(PROFILE_VARIABLE).unwrap_or_default();
    let text = if path.exists() { text(path)? } else { String::new() };
    read_injected(&profile, &text, &System)
}

fn text(path: &Path) -> Result<String, Vec<Problem>> {
    let problem = |message: String| vec![Problem::new(1, 1, "", message)];
    let bytes = std::fs::read(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|_| problem("is not UTF-8 text".to_owned()))
}
