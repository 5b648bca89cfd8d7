//! Rules broken one at a time.

macro_rules! twins {
    ($($name:ident: $text:literal,)*) => {
        /// One rule broken. The text says what is done instead.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Twin {
            $(#[doc = $text] $name,)*
        }

        /// All of them.
        #[cfg(test)]
        pub(crate) const TWINS: &[Twin] = &[$(Twin::$name),*];
    };
}

twins! {
    MetaBeforePages: "Pages and the meta page that names them are written under one sync.",
    AckBeforeSync: "A commit is acknowledged before its group is synced.",
    PageEarly: "Pages that the older slot reaches are given out.",
    LogEarly: "Log that the older slot needs is written over.",
    StartEarly: "The log's start moves with the first slice of a checkpoint.",
    CutLazily: "The cut of the log is not durable before the first append.",
    ShownEarly: "A log without records is shown before its end is cut.",
    TornKept: "Torn copies of the meta page are not mended.",
    StaleKept: "A sound copy of an earlier generation stays beside the newest one.",
    Unsettled: "What opening found in the data file is built upon without a sync.",
    CacheTrusted: "What memory shows is taken for durable after a sync, though an earlier sync failed.",
    ZerosTrusted: "Where memory shows zeros none are written, though the sync of those may have failed.",
    LoneRewritten: "The newest meta page is written anew though no older one stands in for it.",
    OlderAnywhere: "An earlier copy in the newest slot passes for the older slot.",
    ChecksumIgnored: "A meta page is chosen without its checksum.",
    CleanAlone: "A clean close is believed without an older slot.",
    OneSlot: "There is one slot.",
    SyncRetried: "A sync that failed is tried again, and work goes on.",
}
