-- What each router may take of one server, so that all of them together can be compared with what a server has.
ALTER TABLE routers
    -- The most connections to one server. NULL: a version of tenantd that does not say it.
    ADD COLUMN budget   integer CHECK (budget > 0),
    -- How many connections of each server it leaves to others.
    ADD COLUMN reserve  integer CHECK (reserve >= 0),
    -- What the router is called among its like, the same after a restart.
    ADD COLUMN instance text CHECK (instance <> '');
