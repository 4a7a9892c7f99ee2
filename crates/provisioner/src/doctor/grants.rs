//! Whether a laboratory's group has in its database what the grants of this version give, and no more.

use pg::ConnectTarget;
use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use super::{
    checks::Laboratory,
    finding::{Finding, FindingKind, Remedy},
};
use crate::ProvisionError;

/// $1 and $2 are the group and the role, $3 to $6 the rights that the grants name, $7 whether the laboratory
/// has people of its own: of their things nothing is said. Gives what is lacking and what is there beyond the
/// grants.
const COMPARED: &str = "
WITH wanted AS (
    SELECT w.*, CASE w.kind
           WHEN 'SCHEMA' THEN to_regnamespace(quote_ident(w.name))::oid
           WHEN 'FUNCTION' THEN (
             SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = 'public'::regnamespace AND p.proname = split_part(w.name, '(', 1)
                AND p.proargtypes::text = coalesce((
                      SELECT string_agg(coalesce(to_regtype(btrim(t)), to_regtype('public.' || btrim(t)))::oid::text, ' ' ORDER BY n)
                        FROM unnest(string_to_array(rtrim(split_part(w.name, '(', 2), ')'), ',')) WITH ORDINALITY AS s (t, n)), ''))
           ELSE to_regclass('public.' || quote_ident(w.name))::oid END AS object
      FROM unnest($3::text[], $4::text[], $5::text[], $6::text[]) AS w (kind, name, part, privilege)
), things AS (
    SELECT 'SCHEMA' AS kind, n.nspname::text AS name, n.oid AS object, '' AS part, n.nspowner AS owner,
           coalesce(n.nspacl, acldefault('n', n.nspowner)) AS acl
      FROM pg_namespace n WHERE n.nspname = 'public'
    UNION ALL
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.relname::text, c.oid, '', c.relowner, c.relacl
      FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT 'TABLE', c.relname::text, c.oid, a.attname::text, c.relowner, a.attacl
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE c.relnamespace = 'public'::regnamespace AND a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL
    SELECT 'FUNCTION', p.oid::regprocedure::text, p.oid, '', p.proowner, p.proacl
      FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
), held AS (
    SELECT t.*, a.privilege_type, a.is_grantable, coalesce(a.grantee = to_regrole(quote_ident($2)), false) AS directly
      FROM things t CROSS JOIN LATERAL aclexplode(t.acl) a
     WHERE a.grantee IN (to_regrole(quote_ident($1)), to_regrole(quote_ident($2))) AND a.grantee <> t.owner
)
SELECT ARRAY(
         SELECT format('%s%s on %s %s', w.privilege, ' (' || nullif(w.part, '') || ')', w.kind, w.name) FROM wanted w
          WHERE NOT EXISTS (SELECT FROM held h WHERE NOT h.directly AND h.kind = w.kind AND h.object = w.object AND h.part = w.part
                               AND h.privilege_type = w.privilege) ORDER BY 1),
       ARRAY(
         SELECT format('%s%s on %s %s%s%s', h.privilege_type, ' (' || nullif(h.part, '') || ')', h.kind, h.name,
                       CASE WHEN h.is_grantable THEN ' WITH GRANT OPTION' END, CASE WHEN h.directly THEN ' (the role itself)' END)
           FROM held h
          WHERE (h.directly OR h.is_grantable
                 OR NOT EXISTS (SELECT FROM wanted w WHERE w.kind = h.kind AND w.object = h.object AND w.part = h.part
                                   AND w.privilege = h.privilege_type))
            AND (NOT $7 OR EXISTS (SELECT FROM wanted w WHERE w.kind = h.kind AND w.object = h.object)) ORDER BY 1)";

/// How many rights are named.
const SHOWN_MAX: usize = 5;

/// Compares what the group has with what the grants give, in a database at this code's version and a session
/// whose `search_path` is empty.
pub(super) async fn compared(
    client: &Client,
    target: &ConnectTarget,
    laboratory: &Laboratory,
) -> Result<Option<Finding>, ProvisionError> {
    let granted = migrator::granted();
    let texts = |of: fn(&migrator::Granted) -> &'static str| granted.iter().map(of).collect::<Vec<_>>();
    let (kinds, names) = (texts(|right| right.kind), texts(|right| right.name));
    let (parts, privileges) = (texts(|right| right.column), texts(|right| right.privilege));
    let params: [(&(dyn ToSql + Sync), Type); 7] = [
        (&laboratory.group.as_str(), Type::TEXT),
        (&laboratory.role.as_str(), Type::TEXT),
        (&kinds, Type::TEXT_ARRAY),
        (&names, Type::TEXT_ARRAY),
        (&parts, Type::TEXT_ARRAY),
        (&privileges, Type::TEXT_ARRAY),
        (&laboratory.has_people, Type::BOOL),
    ];
    let row = client.query_typed_one(COMPARED, &params).await;
    let row = row.map_err(ProvisionError::db("comparing rights with the grants", target))?;
    let (lacking, beyond): (Vec<String>, Vec<String>) = (row.get(0), row.get(1));
    let mut seen = Vec::new();
    if !lacking.is_empty() {
        seen.push(format!("it lacks {}", shown(&lacking)));
    }
    if !beyond.is_empty() {
        seen.push(format!(
            "it has, beyond what this version grants, {}",
            shown(&beyond)
        ));
    }
    if seen.is_empty() {
        return Ok(None);
    }
    let subject = format!(
        "{} in {}",
        laboratory.group.as_str(),
        laboratory.database.as_str()
    );
    let advice = "`tenantctl doctor --deep --fix` applies the grants again";
    let finding = Finding::new(FindingKind::RightsUnsettled, subject, seen.join("; "), advice);
    Ok(Some(finding.fixed_by(Remedy::Settle(laboratory.id))))
}

fn shown(rights: &[String]) -> String {
    let named = rights
        .iter()
        .take(SHOWN_MAX)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match rights.len().saturating_sub(SHOWN_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
