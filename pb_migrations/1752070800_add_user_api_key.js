/// <reference path="../pb_data/types.d.ts" />
// `users` gets the API key that its OpenCode works with, and nobody may register alone any more.
//
// The field is hidden: PocketBase neither shows it to, nor takes it from, anybody but a superuser.
// The gateway writes it for its users (PUT /opencode/key), encrypted.
migrate(
  (app) => {
    const users = app.findCollectionByNameOrId("users");
    users.fields.add(
      new Field({
        id: "text1752070800",
        type: "text",
        name: "api_key",
        hidden: true,
        // an encrypted key is longer than what was typed in
        max: 4000,
      }),
    );
    users.createRule = null;
    app.save(users);
  },
  (app) => {
    const users = app.findCollectionByNameOrId("users");
    users.fields.removeById("text1752070800");
    users.createRule = "";
    app.save(users);
  },
);
