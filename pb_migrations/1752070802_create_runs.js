/// <reference path="../pb_data/types.d.ts" />
// `runs`: one record a run, written by the gateway alone, readable by its owner.
//
// A record bears the run's own id. Runs of callers without an account have no user and are for
// superusers only.
migrate(
  (app) => {
    const users = app.findCollectionByNameOrId("users");
    const mine = '@request.auth.collectionName = "users" && user = @request.auth.id';
    const number = (name, options = {}) => ({ type: "number", name, min: 0, ...options });
    app.save(
      new Collection({
        id: "pbc1752070802",
        type: "base",
        name: "runs",
        listRule: mine,
        viewRule: mine,
        createRule: null,
        updateRule: null,
        deleteRule: null,
        fields: [
          {
            type: "relation",
            name: "user",
            collectionId: users.id,
            cascadeDelete: true,
            maxSelect: 1,
          },
          // as far as GATEWAY_STORE_PROMPTS allows
          { type: "text", name: "prompt", max: 1000000 },
          { type: "text", name: "model", max: 200 },
          {
            type: "select",
            name: "status",
            maxSelect: 1,
            required: true,
            values: ["queued", "running", "finished", "failed", "cancelled"],
          },
          number("input_tokens", { onlyInt: true }),
          number("output_tokens", { onlyInt: true }),
          number("cached_tokens", { onlyInt: true }),
          number("reasoning_tokens", { onlyInt: true }),
          number("cost_usd"),
          number("queued_s"),
          number("duration_s"),
          { type: "text", name: "error_code", max: 100 },
          { type: "date", name: "started", required: true },
          { type: "date", name: "ended" },
        ],
        indexes: [
          "CREATE INDEX `idx_runs_user_started` ON `runs` (`user`, `started`)",
          "CREATE INDEX `idx_runs_ended` ON `runs` (`ended`)",
        ],
      }),
    );
  },
  (app) => {
    app.delete(app.findCollectionByNameOrId("runs"));
  },
);
