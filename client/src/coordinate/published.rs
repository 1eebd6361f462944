//! Published datasets: futures under a name that outlive their client.

use dask_protocol::message::PublishFlush;
use dask_protocol::pickle::write_futures;
use dask_protocol::{Key, Payload, Value};
use serde::{Deserialize, Serialize};

use super::CoordinateError;
use crate::client::Client;
use crate::future::Future;

#[derive(Deserialize)]
struct Dataset {
    keys: Vec<Key>,
}

impl Client {
    /// Keeps results under a name, for other clients and after this one has left (dask's `publish_dataset`). In Python
    /// `client.get_dataset(name)` gives a list of futures.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the name is taken and `replace` is not set, or the scheduler cannot be asked.
    pub async fn publish<T>(
        &self,
        name: impl Into<Key>,
        futures: &[Future<T>],
        replace: bool,
    ) -> Result<(), CoordinateError> {
        #[derive(Serialize)]
        struct Put<'a> {
            names: [&'a Key; 1],
            keys: [&'a [Key]; 1],
            data: [Payload; 1],
            r#override: bool,
            client: &'a str,
            uid: &'a str,
        }
        let (name, keys) = (name.into(), futures.iter().map(|future| future.key().clone()).collect::<Vec<_>>());
        let data = Payload::serialized_pickle(write_futures(&keys), Vec::new());
        let uid = self.flush();
        let put =
            Put { names: [&name], keys: [&keys], data: [data], r#override: replace, client: self.id(), uid: &uid };
        self.rpc::<_, Value>("publish_put", &put).await.map(drop)
    }

    /// The futures published under a name, by whichever client.
    ///
    /// # Errors
    /// [`CoordinateError::Unknown`] when nothing is.
    pub async fn dataset<T>(&self, name: impl Into<Key>) -> Result<Vec<Future<T>>, CoordinateError> {
        #[derive(Serialize)]
        struct Get<'a> {
            names: [&'a Key; 1],
        }
        let name = name.into();
        let mut found: Vec<Option<Dataset>> = self.rpc("publish_get", &Get { names: [&name] }).await?;
        let dataset = found.pop().flatten().ok_or(CoordinateError::Unknown { what: "dataset", name })?;
        Ok(dataset.keys.into_iter().map(|key| self.future(key)).collect())
    }

    /// The names of all published datasets.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the scheduler cannot be asked.
    pub async fn datasets(&self) -> Result<Vec<Key>, CoordinateError> {
        self.rpc("publish_list", &()).await
    }

    /// Lets a dataset go.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the scheduler cannot be asked.
    pub async fn unpublish(&self, name: impl Into<Key>) -> Result<(), CoordinateError> {
        #[derive(Serialize)]
        struct Delete<'a> {
            names: [&'a Key; 1],
            client: &'a str,
            uid: &'a str,
        }
        let (name, uid) = (name.into(), self.flush());
        self.rpc::<_, Value>("publish_delete", &Delete { names: [&name], client: self.id(), uid: &uid }).await.map(drop)
    }

    /// Marks the stream: what was sent before is handled before the call that names the mark.
    fn flush(&self) -> String {
        let uid = self.session().unique();
        self.session().send(PublishFlush { uid: uid.as_str().into() });
        uid
    }
}
