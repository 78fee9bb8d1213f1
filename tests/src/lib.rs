//! What the tests of the whole product share. The tests themselves are the programs beside this
//! folder: `house/` (the rules of the source tree) needs nothing from here.
