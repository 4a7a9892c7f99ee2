//! Encryption at rest: [age](https://age-encryption.org/v1), to one recipient's public key. Whoever writes
//! archives need not be able to read them; verifying one and restoring it takes the identity.

use std::{path::PathBuf, pin::Pin, str::FromStr};

use age::{Decryptor, Encryptor, IdentityFile, x25519::Recipient};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use crate::ArchiveError;

const CHUNK_BYTES: usize = 64 * 1024;

/// To whom archives are written, and who can read them.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// An age recipient, `age1…`; archives are in the clear without one.
    pub recipient: Option<String>,
    /// The file of the identity that opens them.
    pub identity_file: Option<PathBuf>,
}

impl Keys {
    pub(crate) fn encryptor(&self) -> Result<Option<Encryptor>, ArchiveError> {
        let Some(recipient) = &self.recipient else {
            return Ok(None);
        };
        let wrong = |why: String| ArchiveError::Key {
            what: "archive.age_recipient is no age recipient, which begins with age1",
            why,
        };
        let recipient = Recipient::from_str(recipient).map_err(|why| wrong(why.to_owned()))?;
        let encryptor = Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient));
        encryptor.map(Some).map_err(|error| wrong(error.to_string()))
    }

    /// Refuses keys with which an archive could be written and never be verified: before anything is closed
    /// or dumped.
    ///
    /// # Errors
    /// [`ArchiveError::Key`].
    pub fn check(&self) -> Result<(), ArchiveError> {
        if self.encryptor()?.is_some() {
            self.identities()?;
        }
        Ok(())
    }

    fn identities(&self) -> Result<Vec<Box<dyn age::Identity + Send + Sync>>, ArchiveError> {
        let wrong = |why: String| ArchiveError::Key {
            what: "the archive is encrypted and archive.age_identity_file cannot be read",
            why,
        };
        let file = self
            .identity_file
            .as_ref()
            .ok_or_else(|| wrong("it is not set".to_owned()))?;
        let content = std::fs::read(file).map_err(|error| wrong(format!("{}: {error}", file.display())))?;
        let parsed = IdentityFile::from_buffer(&content[..]).map_err(|error| wrong(error.to_string()))?;
        parsed.into_identities().map_err(|error| wrong(error.to_string()))
    }
}

/// Copies `source` to `sink` encrypted, and ends the sink's stream.
pub(crate) async fn encrypt(
    encryptor: Encryptor,
    source: &mut (impl AsyncRead + Unpin),
    sink: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    use futures_util::AsyncWriteExt as _;
    let mut sealed = encryptor.wrap_async_output(sink.compat_write()).await?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = source.read(&mut chunk).await?;
        if count == 0 {
            return sealed.close().await;
        }
        sealed.write_all(&chunk[..count]).await?;
    }
}

/// What an encrypted stream holds.
pub(crate) async fn decrypt<'a>(
    keys: &Keys,
    source: impl AsyncRead + Unpin + Send + 'a,
) -> Result<Pin<Box<dyn AsyncRead + Send + 'a>>, ArchiveError> {
    let wrong = |why: String| ArchiveError::Key {
        what: "the archive cannot be decrypted with the identity in archive.age_identity_file",
        why,
    };
    let identities = keys.identities()?;
    let decryptor = Decryptor::new_async(source.compat())
        .await
        .map_err(|error| wrong(error.to_string()))?;
    let opened = decryptor
        .decrypt_async(
            identities
                .iter()
                .map(|identity| &**identity as &dyn age::Identity),
        )
        .map_err(|error| wrong(error.to_string()))?;
    Ok(Box::pin(opened.compat()))
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret as _;

    use super::*;

    #[tokio::test]
    async fn what_is_encrypted_opens_with_its_identity_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, other) = (
            age::x25519::Identity::generate(),
            age::x25519::Identity::generate(),
        );
        let file = |name: &str, identity: &age::x25519::Identity| {
            let path = dir.path().join(name);
            std::fs::write(&path, identity.to_string().expose_secret()).unwrap();
            path
        };
        let keys = Keys {
            recipient: Some(ours.to_public().to_string()),
            identity_file: Some(file("ours", &ours)),
        };
        keys.check().unwrap();
        let plain = vec![7_u8; 200_000];
        let mut sealed = Vec::new();
        encrypt(keys.encryptor().unwrap().unwrap(), &mut &plain[..], &mut sealed)
            .await
            .unwrap();
        let mut opened = Vec::new();
        let mut reader = decrypt(&keys, &sealed[..]).await.unwrap();
        reader.read_to_end(&mut opened).await.unwrap();
        assert_eq!(opened, plain);
        drop(reader);
        let others = Keys {
            identity_file: Some(file("other", &other)),
            ..keys.clone()
        };
        assert!(decrypt(&others, &sealed[..]).await.is_err());
        sealed[150_000] ^= 1;
        let mut reader = decrypt(&keys, &sealed[..]).await.unwrap();
        assert!(reader.read_to_end(&mut Vec::new()).await.is_err());
        let bad = Keys {
            recipient: Some("age1x".to_owned()),
            ..Keys::default()
        };
        assert!(bad.check().is_err());
        let blind = Keys {
            identity_file: None,
            ..keys
        };
        assert!(
            blind
                .check()
                .unwrap_err()
                .to_string()
                .contains("age_identity_file")
        );
    }
}
