//! A stream becomes a file, with its size and SHA-256 counted on the way, and stands under its name only when
//! it is whole.
//!
//! In an object store it goes up in parts, and the store shows nothing under the name before the last one.
//! What a try that died has sent already would be kept (and paid for) unseen, so the upload's own id is noted
//! beside the file first (`<name>.upload`): the next try ends that upload, and a note that is left names it.

use std::path::Path;

use object_store::{ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::{
    ArchiveError, Location,
    dump::{OnProgress, Written},
    files,
    location::{Kind, Remote},
};

/// One part: all but the last are of one size, as some stores ask. 10,000 of them, the most that S3 takes,
/// are 312 GiB.
const PART_BYTES: usize = 32 * 1024 * 1024;
const CHUNK_BYTES: usize = 256 * 1024;
/// The longest id of an upload that is believed.
const NOTE_BYTES_MAX: u64 = 16 * 1024;

/// Takes in all of `source`; `on_progress` hears how many bytes are written.
pub(crate) async fn upload(
    location: &Location,
    source: impl AsyncRead + Unpin,
    on_progress: OnProgress<'_>,
) -> Result<Written, ArchiveError> {
    match location.kind() {
        Kind::Remote(remote) => to_store(location, remote, source, on_progress).await,
        Kind::Local(path) => to_file(path, source, on_progress).await,
    }
}

async fn to_file(
    path: &Path,
    mut source: impl AsyncRead + Unpin,
    on_progress: OnProgress<'_>,
) -> Result<Written, ArchiveError> {
    let part = files::part_of(path);
    let mut file = tokio::fs::File::from_std(files::prepare_file(&part)?);
    let mut tally = Tally::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = source
            .read(&mut chunk)
            .await
            .map_err(ArchiveError::io("writing", &part))?;
        if count == 0 {
            break;
        }
        tally.add(&chunk[..count]);
        file.write_all(&chunk[..count])
            .await
            .map_err(|error| files::full(&part, error))?;
        on_progress(tally.bytes);
    }
    file.flush().await.map_err(|error| files::full(&part, error))?;
    drop(file);
    files::finish_file(&part, path).await?;
    Ok(tally.written())
}

async fn to_store(
    location: &Location,
    remote: &Remote,
    mut source: impl AsyncRead + Unpin,
    on_progress: OnProgress<'_>,
) -> Result<Written, ArchiveError> {
    let note = location.sibling("upload");
    end_earlier(&note, remote).await?;
    let mut tally = Tally::default();
    let first = next_part(location, &mut source, &mut tally).await?;
    if first.len() < PART_BYTES {
        let put = remote.objects.put(&remote.path, PutPayload::from(first)).await;
        put.map_err(remote.failed("writing"))?;
        on_progress(tally.bytes);
        return Ok(tally.written());
    }
    let id = remote
        .multipart
        .create_multipart(&remote.path)
        .await
        .map_err(remote.failed("beginning to write"))?;
    note.put(id.clone().into_bytes()).await?;
    let sent = async {
        let (mut parts, mut part) = (Vec::new(), first);
        while !part.is_empty() {
            let payload = PutPayload::from(std::mem::take(&mut part));
            let sent = remote.multipart.put_part(&remote.path, &id, parts.len(), payload);
            parts.push(sent.await.map_err(remote.failed("writing"))?);
            on_progress(tally.bytes);
            part = next_part(location, &mut source, &mut tally).await?;
        }
        let complete = remote.multipart.complete_multipart(&remote.path, &id, parts);
        complete.await.map_err(remote.failed("finishing"))
    };
    match sent.await {
        Ok(_) => note.remove().await?,
        Err(error) => {
            // The next try does it where this fails.
            if let Err(also) = end_earlier(&note, remote).await {
                tracing::warn!(%also, "an upload that failed could not be ended");
            }
            return Err(error);
        }
    }
    Ok(tally.written())
}

/// Ends an upload that an earlier try left unfinished.
async fn end_earlier(note: &Location, remote: &Remote) -> Result<(), ArchiveError> {
    let Some(id) = note.get(NOTE_BYTES_MAX).await? else {
        return Ok(());
    };
    let id = String::from_utf8_lossy(&id).into_owned();
    match remote.multipart.abort_multipart(&remote.path, &id).await {
        // Finished or ended before: the note outlived it.
        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(remote.failed("ending an earlier upload of")(error)),
    }
    note.remove().await
}

/// Up to a whole part; less only at the source's end.
async fn next_part(
    location: &Location,
    source: &mut (impl AsyncRead + Unpin),
    tally: &mut Tally,
) -> Result<Vec<u8>, ArchiveError> {
    let mut part = Vec::new();
    let read = source.take(PART_BYTES as u64).read_to_end(&mut part).await;
    read.map_err(|error| ArchiveError::Store {
        doing: "reading what is to be written to",
        location: location.to_string(),
        why: error.to_string(),
        passing: false,
    })?;
    tally.add(&part);
    Ok(part)
}

#[derive(Default)]
struct Tally {
    bytes: u64,
    hash: Sha256,
}

impl Tally {
    fn add(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.hash.update(chunk);
    }

    fn written(self) -> Written {
        Written {
            bytes: self.bytes,
            sha256: hex::encode(self.hash.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::{memory::InMemory, multipart::MultipartStore};

    use super::*;

    #[tokio::test]
    async fn a_large_upload_is_whole_or_not_there_and_ends_what_an_earlier_one_left() {
        let store: Arc<InMemory> = Arc::default();
        let location = Location::in_memory(store.clone(), "lab/a.dump");
        let Kind::Remote(remote) = location.kind() else {
            panic!("{location} lies in memory");
        };
        let left = store.create_multipart(&remote.path).await.unwrap();
        location
            .sibling("upload")
            .put(left.clone().into_bytes())
            .await
            .unwrap();

        let content: Vec<u8> = (0..PART_BYTES * 2 + 7).map(|n| (n % 251) as u8).collect();
        // Its source breaks off in the second part.
        let broken = tokio_util::io::StreamReader::new(futures_util::stream::iter([
            Ok(bytes::Bytes::from(content[..PART_BYTES + 9].to_vec())),
            Err(std::io::Error::other("the program died")),
        ]));
        let error = upload(&location, broken, &|_| {}).await.unwrap_err().to_string();
        assert!(error.contains("the program died"), "{error}");
        assert!(
            location.get(10).await.unwrap().is_none(),
            "nothing under its name"
        );
        assert!(location.sibling("upload").get(99).await.unwrap().is_none());
        let ended = store
            .put_part(&remote.path, &left, 0, PutPayload::from("x"))
            .await;
        assert!(ended.is_err(), "the earlier upload is ended");

        let written = upload(&location, &content[..], &|_| {}).await.unwrap();
        assert_eq!(written.bytes, content.len() as u64);
        location.require(written.bytes, &written.sha256).await.unwrap();
    }
}
