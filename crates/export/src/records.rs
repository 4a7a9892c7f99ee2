//! PostgreSQL ends a CSV record with a line feed, RFC 4180 with carriage return and line feed.

/// Rewrites the ends of records as they pass, in whatever pieces they come, and counts them.
#[derive(Debug, Default)]
pub(crate) struct Records {
    quoted: bool,
    ended: u64,
}

impl Records {
    /// Adds `bytes` to `out`. A doubled quote within quotes opens and closes at once, which comes to the
    /// same.
    pub(crate) fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        out.reserve(bytes.len() + 2);
        for &byte in bytes {
            match byte {
                b'"' => self.quoted = !self.quoted,
                b'\n' if !self.quoted => {
                    self.ended += 1;
                    out.push(b'\r');
                }
                _ => {}
            }
            out.push(byte);
        }
    }

    /// How many records have ended beside the header.
    pub(crate) fn rows(&self) -> u64 {
        self.ended.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ends_of_records_change_wherever_the_pieces_are_cut() {
        let text = b"a,b\n1,\"x\ny\"\n2,\"say \"\"hi\"\"\n\"\n\\N,\n";
        let expected = b"a,b\r\n1,\"x\ny\"\r\n2,\"say \"\"hi\"\"\n\"\r\n\\N,\r\n";
        for cut in 0..text.len() {
            let (mut records, mut out) = (Records::default(), Vec::new());
            records.pass(&text[..cut], &mut out);
            records.pass(&text[cut..], &mut out);
            assert_eq!(out, expected, "cut at {cut}");
            assert_eq!(records.rows(), 3);
        }
    }
}
