//! A ZIP that is written without seeking: what the compressor gives out is taken away as it comes.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use zip::{
    CompressionMethod, ZipWriter,
    write::{SimpleFileOptions, StreamWriter},
};

use crate::{ExportError, document::FileEntry};

/// How many bytes are handed on at once, about.
const CHUNK_BYTES: usize = 64 * 1024;

/// Holds what the compressor has written until it is taken.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Vec<u8>>>);

impl Pipe {
    fn take(&self) -> Vec<u8> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The archive, and the file in it that is being written.
pub(crate) struct Archive<Out> {
    zip: ZipWriter<StreamWriter<Pipe>>,
    pipe: Pipe,
    out: Out,
    hash: Sha256,
    path: String,
    bytes: u64,
    total: u64,
}

impl<Out: AsyncFnMut(Bytes) -> io::Result<()>> Archive<Out> {
    pub(crate) fn new(out: Out) -> Self {
        let pipe = Pipe::default();
        Self {
            zip: ZipWriter::new_stream(pipe.clone()),
            pipe,
            out,
            hash: Sha256::new(),
            path: String::new(),
            bytes: 0,
            total: 0,
        }
    }

    /// Begins a file. `large`: it may come to 4 GiB, which the older form of ZIP cannot say.
    pub(crate) fn begin(&mut self, path: &str, large: bool) -> Result<(), ExportError> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .large_file(large);
        self.zip.start_file(path, options)?;
        path.clone_into(&mut self.path);
        self.hash = Sha256::new();
        self.bytes = 0;
        Ok(())
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.zip
            .write_all(bytes)
            .map_err(|error| ExportError::Archive(error.into()))?;
        self.hash.update(bytes);
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.pipe.len() >= CHUNK_BYTES {
            self.hand_on().await?;
        }
        Ok(())
    }

    /// What the file that was written last came to.
    pub(crate) fn end(&mut self, rows: Option<u64>) -> FileEntry {
        FileEntry {
            path: mem::take(&mut self.path),
            rows,
            bytes: self.bytes,
            sha256: hex::encode(mem::take(&mut self.hash).finalize()),
        }
    }

    pub(crate) async fn whole(&mut self, path: &str, content: &[u8]) -> Result<FileEntry, ExportError> {
        self.begin(path, false)?;
        self.write(content).await?;
        Ok(self.end(None))
    }

    async fn hand_on(&mut self) -> Result<(), ExportError> {
        let chunk = self.pipe.take();
        self.total += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        (self.out)(Bytes::from(chunk))
            .await
            .map_err(ExportError::Receiver)
    }

    /// Writes the directory, without which no reader takes the archive. Gives the archive's size in bytes.
    pub(crate) async fn finish(mut self) -> Result<u64, ExportError> {
        let zip = mem::replace(&mut self.zip, ZipWriter::new_stream(Pipe::default()));
        drop(zip.finish()?);
        self.hand_on().await?;
        Ok(self.total)
    }
}
