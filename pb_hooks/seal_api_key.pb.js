/// <reference path="../pb_data/types.d.ts" />
// An API key never reaches the disk in the clear.
//
// An admin may type a user's key into the admin UI. SQLite keeps old pages and its log for a long
// time, so encrypting the key later would leave it there to be read. It is therefore sealed before
// the row is written, whichever way it comes in (admin UI, API, import). What the gateway wrote
// ("enc:v1:…") and what is sealed already ("enc:seal:…") passes as it is.

onRecordCreateExecute((e) => {
  require(`${__hooks}/seal_api_key.js`).seal(e.record);
  e.next();
}, "users");

onRecordUpdateExecute((e) => {
  require(`${__hooks}/seal_api_key.js`).seal(e.record);
  e.next();
}, "users");
