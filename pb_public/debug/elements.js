/** Access to the page's fixed elements. */

/** The element *id*, which the page promises to have. */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`debug.html has no #${id}`);
  return found;
}
