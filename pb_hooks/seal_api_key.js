// AES-256-GCM with the key in the file that KEY_SEALING_KEY_FILE names; the gateway has the same
// key and opens the seal. Without the file nothing is saved: better no key than one in the clear.
const PREFIX = "enc:";
const SEALED = "enc:seal:";
const KEY_LENGTH = 32;
const MAX_LENGTH = 4000; // of the field: a longer value could never be saved again

function sealingKey() {
  const path = $os.getenv("KEY_SEALING_KEY_FILE");
  if (!path) {
    throw new BadRequestError(
      "API keys can't be saved here: KEY_SEALING_KEY_FILE is not set for PocketBase.",
    );
  }
  let key;
  try {
    key = toString($os.readFile(path)).trim();
  } catch {
    throw new BadRequestError(
      "API keys can't be saved here: the file in KEY_SEALING_KEY_FILE can't be read.",
    );
  }
  if (key.length !== KEY_LENGTH) {
    throw new BadRequestError(
      `API keys can't be saved here: KEY_SEALING_KEY_FILE must hold ${KEY_LENGTH} characters.`,
    );
  }
  return key;
}

module.exports = {
  /** Replaces a plain `api_key` of *record* by its sealed form. */
  seal(record) {
    const value = record.getString("api_key").trim();
    if (value === "" || value.startsWith(PREFIX)) {
      return;
    }
    const sealed = SEALED + $security.encrypt(value, sealingKey());
    if (sealed.length > MAX_LENGTH) {
      throw new BadRequestError("The API key is too long.");
    }
    record.set("api_key", sealed);
  },
};
