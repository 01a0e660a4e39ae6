//! Which revision of which model, and where: what every message of a fetch begins with.

use std::fmt;

use anyhow::Result;
use hf_hub::{Repo, RepoType};

use super::Hub;
use super::names::{check_repo, check_revision, escaped, is_commit};

/// A revision of a model at a hub, its names checked.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) hub: &'a Hub,
    pub(super) repo: &'a str,
    pub(super) revision: &'a str,
}

impl<'a> Place<'a> {
    pub(super) fn new(hub: &'a Hub, repo: &'a str, revision: Option<&'a str>) -> Result<Self> {
        let revision = revision.unwrap_or("main");
        check_repo(repo)?;
        check_revision(revision)?;
        Ok(Place { hub, repo, revision })
    }

    /// Whether the revision is a commit, which never moves.
    pub(super) fn is_commit(&self) -> bool {
        is_commit(self.revision)
    }

    /// As `hf-hub` names it.
    pub(super) fn named(&self) -> Repo {
        let revision = self.revision.to_owned();
        Repo::with_revision(self.repo.to_owned(), RepoType::Model, revision)
    }

    /// Where the hub lists the revision's files.
    pub(super) fn listing(&self) -> String {
        let (hub, repo) = (&self.hub.endpoint, self.repo);
        format!("{hub}/api/models/{repo}/revision/{}", escaped(self.revision))
    }

    /// Where the hub gives a file of a commit.
    pub(super) fn file(&self, commit: &str, file: &str) -> String {
        let file = file.split('/').map(escaped).collect::<Vec<_>>().join("/");
        format!("{}/{}/resolve/{commit}/{file}", self.hub.endpoint, self.repo)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.repo, self.revision)
    }
}
