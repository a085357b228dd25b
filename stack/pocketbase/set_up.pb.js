/// A command of its own for PocketBase: `pocketbase set-up`, run before the server starts.
///
/// It takes passwords from files, never from the command line; without DEMO_USER_PASSWORD_FILE it
/// makes no demo user. With ENVIRONMENT=production it refuses a weak password of the superuser, as
/// both services do with theirs. It answers on stdout with JSON:
/// {"demo": "created" | "kept" | "none", "demo_password_works": bool, "demo_token": string},
/// or {"error": string} and exit status 1.

$app.rootCmd.addCommand(
  new Command({
    use: "set-up",
    short: "Set the superuser's password; make the demo user when there are no users yet",
    run: (cmd) => {
      const read = (name) => toString($os.readFile($os.getenv(name))).trim();

      // As in runner/plumbing/strength.py.
      const mustBeStrong = (name, value) => {
        const common = /change|passw|secret|default|example/i;
        if (value.length < 16 || new Set(value).size < 8 || common.test(value)) {
          throw new Error(`${name} is too weak for ENVIRONMENT=production (\`make secrets\` makes one)`);
        }
      };

      const find = (collection, email) => {
        try {
          return $app.findAuthRecordByEmail(collection, email);
        } catch {
          return null;
        }
      };

      const setSuperuser = (email, password) => {
        const known = find("_superusers", email);
        if (known?.validatePassword(password)) {
          return; // writing it again would end every session of the superuser
        }
        const record = known ?? new Record($app.findCollectionByNameOrId("_superusers"));
        record.setEmail(email);
        record.setPassword(password);
        $app.save(record);
      };

      // PocketBase's own backups: written here at every start, so change them by setting.
      const scheduleBackups = (cron, keep) => {
        const settings = $app.settings();
        if (settings.backups.cron === cron && settings.backups.cronMaxKeep === keep) {
          return;
        }
        settings.backups.cron = cron;
        settings.backups.cronMaxKeep = keep;
        $app.save(settings);
      };

      const demoUser = (email, password) => {
        if (!password) {
          return { record: null, demo: "none" };
        }
        if ($app.countRecords("users") > 0) {
          const record = find("users", email);
          return { record, demo: record ? "kept" : "none" };
        }
        const record = new Record($app.findCollectionByNameOrId("users"));
        record.setEmail(email);
        record.setPassword(password);
        record.setVerified(true);
        record.set("name", "Demo");
        $app.save(record);
        return { record, demo: "created" };
      };

      let step = "migrations";
      try {
        $app.runAllMigrations();
        step = "PB_SUPERUSER_…";
        const superuserPassword = read("PB_SUPERUSER_PASSWORD_FILE");
        if ($os.getenv("ENVIRONMENT") === "production") {
          mustBeStrong("PB_SUPERUSER_PASSWORD", superuserPassword);
        }
        setSuperuser($os.getenv("PB_SUPERUSER_EMAIL"), superuserPassword);
        step = "PB_BACKUPS_…";
        if ($os.getenv("PB_BACKUPS_KEEP") !== "") {
          scheduleBackups($os.getenv("PB_BACKUPS_CRON"), Number($os.getenv("PB_BACKUPS_KEEP")));
        }
        step = "DEMO_USER_…";
        const password = $os.getenv("DEMO_USER_PASSWORD_FILE") && read("DEMO_USER_PASSWORD_FILE");
        const { record, demo } = demoUser($os.getenv("DEMO_USER_EMAIL"), password);
        cmd.outOrStdout().write(
          JSON.stringify({
            demo,
            demo_password_works: record?.validatePassword(password) ?? false,
            demo_token: record?.newAuthToken() ?? "",
          }),
        );
      } catch (err) {
        cmd.outOrStdout().write(JSON.stringify({ error: `${step}: ${err?.value ?? err}` }));
        $os.exit(1);
      }
    },
  }),
);
