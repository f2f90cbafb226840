//! Work that runs to completion even if its caller is dropped.

use std::future::Future;

use tokio::runtime::Handle;

use crate::error::{Error, ErrorKind, Retry};

/// Runs `work` in a task of its own, and waits for it. Dropping the returned future does not stop the
/// task. If the task is dropped or panics, the error has the text `interrupted` and the advice `retry`.
///
/// # Errors
///
/// Those of `work`; [`ErrorKind::NoRuntime`] outside a tokio runtime; [`ErrorKind::Interrupted`].
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
    interrupted: &'static str,
    retry: Retry,
) -> Result<T, Error> {
    let runtime = Handle::try_current().map_err(|_| Error::no_runtime())?;
    runtime.spawn(work).await.unwrap_or_else(|cause| {
        let error = Error::build(ErrorKind::Interrupted, retry, interrupted);
        Err(error.interrupted_by(cause).done())
    })
}
