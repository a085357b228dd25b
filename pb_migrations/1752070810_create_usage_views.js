/// <reference path="../pb_data/types.d.ts" />
// What each user has used: `usage_by_day` (days in UTC) and `usage_by_user`, both made of `runs`.
//
// Readable by the user concerned; in the admin UI by superusers, all users together.
migrate(
  (app) => {
    const mine = '@request.auth.collectionName = "users" && user = @request.auth.id';
    const sums = ["input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"]
      .map((name) => `CAST(SUM(runs.${name}) AS INTEGER) AS ${name}`)
      .concat("CAST(SUM(runs.cost_usd) AS REAL) AS cost_usd", "COUNT(runs.id) AS runs")
      .join(", ");
    const view = (id, name, viewQuery) =>
      app.save(
        new Collection({ id, type: "view", name, listRule: mine, viewRule: mine, viewQuery }),
      );
    view(
      "pbc1752070810",
      "usage_by_day",
      "SELECT (runs.user || SUBSTR(runs.started, 1, 10)) AS id, runs.user, " +
        `CAST(SUBSTR(runs.started, 1, 10) AS TEXT) AS day, ${sums} ` +
        "FROM runs GROUP BY runs.user, SUBSTR(runs.started, 1, 10)",
    );
    view(
      "pbc1752070811",
      "usage_by_user",
      `SELECT ('u' || runs.user) AS id, runs.user, ${sums} FROM runs GROUP BY runs.user`,
    );
  },
  (app) => {
    for (const name of ["usage_by_user", "usage_by_day"]) {
      app.delete(app.findCollectionByNameOrId(name));
    }
  },
);
