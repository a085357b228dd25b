/// <reference path="../pb_data/types.d.ts" />
// What the application is called, whose word about the caller's address counts, how long logs stay.
//
// PocketBase listens on loopback or an internal network, where only the gateway reaches it. The
// gateway sets X-Forwarded-For itself (whatever a client sends in it is dropped), so the rightmost
// address is the caller's.
migrate(
  (app) => {
    const settings = app.settings();
    settings.meta.appName = "OpenCode Multiuser";
    settings.trustedProxy.headers = ["X-Forwarded-For"];
    settings.trustedProxy.useLeftmostIP = false;
    settings.logs.maxDays = 14;
    app.save(settings);
  },
  (app) => {
    // PocketBase's own defaults
    const settings = app.settings();
    settings.meta.appName = "Acme";
    settings.trustedProxy.headers = [];
    settings.trustedProxy.useLeftmostIP = false;
    settings.logs.maxDays = 5;
    app.save(settings);
  },
);
