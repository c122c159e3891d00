//! The folder that holds the datasets.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::DataError;

/// Why a folder is the data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was asked for: `--data-dir`.
    Asked,
    /// `TASKWEAVE_HOME` names it.
    Variable,
    /// It is the user's cache: `$XDG_CACHE_HOME/taskweave`, or `~/.cache/taskweave`.
    Cache,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "given by --data-dir",
            Self::Variable => "given by TASKWEAVE_HOME",
            Self::Cache => "the user's cache",
        })
    }
}

/// The folder that holds the datasets. It need not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataHome {
    path: PathBuf,
    origin: Origin,
}

impl DataHome {
    /// A folder of one's own choice.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            origin: Origin::Asked,
        }
    }

    /// The folder that was asked for; without one, that of the environment variable
    /// `TASKWEAVE_HOME`; without that, `$XDG_CACHE_HOME/taskweave` or `~/.cache/taskweave`.
    ///
    /// # Errors
    /// [`DataError::NoHome`] where nothing is set and the user has no home folder.
    pub fn resolve(asked: Option<&Path>) -> Result<Self, DataError> {
        Self::choose(
            asked,
            env::var_os("TASKWEAVE_HOME"),
            env::var_os("XDG_CACHE_HOME"),
            env::home_dir(),
        )
    }

    fn choose(
        asked: Option<&Path>,
        variable: Option<OsString>,
        xdg_cache: Option<OsString>,
        home: Option<PathBuf>,
    ) -> Result<Self, DataError> {
        if let Some(path) = asked {
            return Ok(Self::at(path));
        }
        if let Some(path) = variable.filter(|path| !path.is_empty()) {
            return Ok(Self {
                path: path.into(),
                origin: Origin::Variable,
            });
        }
        // The XDG base directory specification has relative paths ignored.
        let cache = xdg_cache
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| {
                let home = home.filter(|path| !path.as_os_str().is_empty())?;
                Some(home.join(".cache"))
            })
            .ok_or(DataError::NoHome)?;
        Ok(Self {
            path: cache.join("taskweave"),
            origin: Origin::Cache,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why it is this one.
    pub fn origin(&self) -> Origin {
        self.origin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(
        asked: Option<&str>,
        variable: Option<&str>,
        xdg: Option<&str>,
        home: Option<&str>,
    ) -> Option<(String, Origin)> {
        let home = DataHome::choose(
            asked.map(Path::new),
            variable.map(OsString::from),
            xdg.map(OsString::from),
            home.map(PathBuf::from),
        );
        home.ok()
            .map(|home| (home.path.display().to_string(), home.origin))
    }

    #[test]
    #[cfg(unix)]
    fn what_is_asked_for_comes_before_the_variable_and_that_before_the_cache() {
        let some = |path: &str, origin| Some((path.to_owned(), origin));
        let all = (Some("/t"), Some("/x"), Some("/h"));
        assert_eq!(
            chosen(Some("d"), all.0, all.1, all.2),
            some("d", Origin::Asked)
        );
        assert_eq!(
            chosen(None, all.0, all.1, all.2),
            some("/t", Origin::Variable)
        );
        assert_eq!(
            chosen(None, Some(""), all.1, all.2),
            some("/x/taskweave", Origin::Cache)
        );
        let in_home = some("/h/.cache/taskweave", Origin::Cache);
        assert_eq!(chosen(None, None, Some("relative"), all.2), in_home);
        assert_eq!(chosen(None, None, Some(""), all.2), in_home);
        assert_eq!(chosen(None, None, None, all.2), in_home);
        assert_eq!(chosen(None, None, None, None), None);
        assert_eq!(chosen(None, None, None, Some("")), None);
    }
}
