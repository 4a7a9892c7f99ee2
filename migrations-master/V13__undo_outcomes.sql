-- How an operation's undoing came about and went. Until now both stood in the text of its error and were read from there.
ALTER TABLE operations
    -- Why what it made is taken away, or was: it failed for good, or somebody called it off. The error says more.
    ADD COLUMN undo_reason text CHECK (undo_reason IN ('failed', 'cancelled')),
    -- Why the last try to take it away failed. The error stays what it was: why the operation failed, or who called it off.
    ADD COLUMN undo_error  text CHECK (undo_error <> '');

UPDATE operations
   SET undo_reason = CASE WHEN starts_with(error, 'called off by ') THEN 'cancelled' ELSE 'failed' END
 WHERE status IN ('undoing', 'cancelled') OR status = 'failed' AND strpos(error, ' (undoing it: ') > 0;

UPDATE operations
   SET error = split_part(error, ' (undoing it: ', 1),
       undo_error = regexp_replace(substr(error, strpos(error, ' (undoing it: ') + length(' (undoing it: ')), '\)$', '')
 WHERE undo_reason IS NOT NULL AND strpos(error, ' (undoing it: ') > 0;
