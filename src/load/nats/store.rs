//! The files of shares in JetStream's object store.

use std::path::Path;

use async_nats::jetstream::{self, object_store};
use futures_util::StreamExt as _;

use super::{NatsError, NatsServer};
use crate::load::shares::file::{EXTENSION, file_name};
use crate::load::shares::name::RunName;
use crate::syntax::share::{MAX_SHARES, Share};

/// The bucket with the files of all runs.
const BUCKET: &str = "hubproof";

impl NatsServer {
    /// Checks that the server has no file of this share yet.
    ///
    /// # Errors
    /// [`NatsError::Exists`]
    pub async fn check_unstored(&self, run: &RunName, share: Share) -> Result<(), NatsError> {
        let stored = match self.jetstream().get_object_store(BUCKET).await {
            Ok(store) => store.info(file_name(&run.to_string(), share)).await.is_ok_and(|found| !found.deleted),
            Err(_) => false,
        };
        match stored {
            true => Err(NatsError::Exists { server: self.shown.clone(), run: run.clone(), share }),
            false => Ok(()),
        }
    }

    /// Stores the file of a share.
    ///
    /// # Errors
    /// The server has no JetStream or no space.
    pub async fn store(&self, run: &RunName, share: Share, path: &Path) -> Result<(), NatsError> {
        let jetstream = self.jetstream();
        let store = match jetstream.get_object_store(BUCKET).await {
            Ok(store) => store,
            Err(_) => {
                let description = Some("files of load runs, for hubproof merge".to_owned());
                let config = object_store::Config { bucket: BUCKET.to_owned(), description, ..Default::default() };
                jetstream.create_object_store(config).await.map_err(|error| self.failed(&error))?
            }
        };
        let mut file = tokio::fs::File::open(path).await.map_err(|error| self.failed(&error))?;
        let stored = store.put(file_name(&run.to_string(), share).as_str(), &mut file).await;
        stored.map(drop).map_err(|error| self.failed(&error))
    }

    /// Copies the files of a run's shares to a folder.
    ///
    /// # Errors
    /// There are none, or one cannot be read completely.
    pub async fn fetch(&self, run: &RunName, folder: &Path) -> Result<(), NatsError> {
        let store = self.jetstream().get_object_store(BUCKET).await;
        let store = store.map_err(|_| NatsError::NoStore(self.shown.clone()))?;
        let mut list = store.list().await.map_err(|error| self.failed(&error))?;
        let mut shares = Vec::new();
        while let Some(found) = list.next().await {
            let found = found.map_err(|error| self.failed(&error))?;
            shares.extend(stored_share(run, &found.name).filter(|_| shares.len() < MAX_SHARES as usize));
        }
        if shares.is_empty() {
            return Err(NatsError::NoFiles { server: self.shown.clone(), run: run.clone() });
        }
        for share in shares {
            let name = file_name(&run.to_string(), share);
            let mut object = store.get(&name).await.map_err(|error| self.failed(&error))?;
            let mut file = tokio::fs::File::create(folder.join(&name)).await.map_err(|error| self.failed(&error))?;
            tokio::io::copy(&mut object, &mut file).await.map_err(|error| self.failed(&error))?;
            tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }

    fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client.clone())
    }
}

/// Returns the share of a run whose file has this name.
fn stored_share(run: &RunName, name: &str) -> Option<Share> {
    let part = name.strip_prefix(&format!("{run}."))?.strip_suffix(&format!(".{EXTENSION}"))?;
    let share: Share = part.replacen("-of-", "/", 1).parse().ok()?;
    (file_name(&run.to_string(), share) == name).then_some(share)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("r.3-of-16.share", Some("3/16"))]
    #[case("r.x.3-of-16.share", None)]
    #[case("s.3-of-16.share", None)]
    #[case("r.03-of-16.share", None)]
    #[case("r.2+1-of-16.share", None)]
    fn only_names_of_the_run_are_its_files(#[case] name: &str, #[case] share: Option<&str>) {
        let found = stored_share(&"r".parse().unwrap(), name);
        assert_eq!(found.map(|share| share.to_string()).as_deref(), share);
    }
}
