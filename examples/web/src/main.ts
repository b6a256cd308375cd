// The page: a form, a list with pages, and the changes as they happen.
import { Code, ConnectError } from "@connectrpc/connect";
import { connect, said, violations } from "./client";
import type { User } from "./gen/user/v1/user_pb";
import { watch } from "./watch";

const PAGE_SIZE = 10;
const MAX_CHANGES = 20;

const users = connect(new URLSearchParams(location.search).get("server") ?? "http://localhost:50051");
const $ = <E extends HTMLElement>(id: string) => document.getElementById(id) as E;
const form = $<HTMLFormElement>("edit");
const field = (name: string) => form.elements.namedItem(name) as HTMLInputElement;

/** The user that the form edits; `undefined` while it is for a new one. */
let edited: User | undefined;
/** Names a write, so that trying it again writes nothing twice. */
let requestId = crypto.randomUUID();
/** The tokens of the pages up to the one that is shown. */
let tokens = [""];

/** Does something, and shows its error where it belongs. */
async function attempt(where: HTMLElement, action: () => Promise<void>): Promise<void> {
  where.textContent = "";
  try {
    await action();
  } catch (error) {
    show(ConnectError.from(error), where);
  }
}

function show(error: ConnectError, where: HTMLElement): void {
  const wrong = violations(error);
  for (const output of form.querySelectorAll<HTMLOutputElement>("[data-field]")) {
    const description = wrong.get(output.dataset.field!) ?? "";
    output.value = description;
    output.previousElementSibling!.setAttribute("aria-invalid", String(description !== ""));
  }
  where.textContent = wrong.size > 0 ? "" : said(error);
  $("reload").hidden = error.code !== Code.Aborted;
}

function edit(user?: User): void {
  edited = user;
  requestId = crypto.randomUUID();
  field("name").value = user?.name ?? "";
  field("email").value = user?.email ?? "";
  field("age").value = user ? String(user.age) : "";
  $("edit-title").textContent = user ? "Edit" : "New user";
  $("save").textContent = user ? "Save" : "Create";
  $("cancel").hidden = !user;
  $("reload").hidden = true;
  for (const output of form.querySelectorAll<HTMLOutputElement>("[data-field]")) {
    output.value = "";
    output.previousElementSibling!.removeAttribute("aria-invalid");
  }
  $("edit-error").textContent = "";
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  void attempt($("edit-error"), async () => {
    const age = Number(field("age").value);
    // What is no number is no age either, and the server says what an age is.
    const typed = { name: field("name").value, email: field("email").value, age: Number.isInteger(age) ? age : -1 };
    if (edited) {
      const user = { ...typed, id: edited.id, etag: edited.etag };
      await users.updateUser({ user, updateMask: { paths: ["name", "email", "age"] }, requestId });
    } else {
      await users.createUser({ user: typed, requestId });
    }
    edit();
    await list();
  });
});
// Another payload is another write.
form.addEventListener("input", () => { requestId = crypto.randomUUID(); });
$("cancel").addEventListener("click", () => edit());
$("reload").addEventListener("click", () => {
  void attempt($("edit-error"), async () => {
    const { user } = await users.getUser({ key: { case: "id", value: edited!.id } });
    edit(user);
  });
});

$<HTMLFormElement>("find").addEventListener("submit", (event) => {
  event.preventDefault();
  $("found").textContent = "";
  const value = ($("find").querySelector("input") as HTMLInputElement).value.trim();
  void attempt($("find-error"), async () => {
    const { user } = await users.getUser({ key: { case: value.includes("@") ? "email" : "id", value } });
    $("found").textContent = `${user!.name}, ${user!.age} `;
    $("found").append(button("Edit", () => edit(user)));
  });
});

async function list(): Promise<void> {
  const { users: page, nextPageToken } = await users.listUsers({ pageSize: PAGE_SIZE, pageToken: tokens.at(-1) });
  $("users").replaceChildren(...page.map(row));
  $("page").textContent = `page ${tokens.length}`;
  $<HTMLButtonElement>("previous").disabled = tokens.length === 1;
  const next = $<HTMLButtonElement>("next");
  next.disabled = nextPageToken === "";
  next.onclick = () => turn([...tokens, nextPageToken]);
}

function turn(to: string[]): void {
  tokens = to;
  void attempt($("list-error"), list);
}
$("previous").addEventListener("click", () => turn(tokens.slice(0, -1)));

function row(user: User): HTMLElement {
  const row = document.createElement("tr");
  row.dataset.id = user.id;
  for (const text of [user.name, user.email, String(user.age)]) row.insertCell().textContent = text;
  const remove = () => attempt($("list-error"), async () => {
    await users.deleteUser({ id: user.id, etag: user.etag });
    await list();
  });
  row.insertCell().append(button("Edit", () => edit(user)), " ", button("Delete", () => void remove()));
  return row;
}

function button(text: string, action: () => void): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.addEventListener("click", action);
  return button;
}

void watch(users, {
  live(isLive) {
    $("live").textContent = isLive ? "live" : "reconnecting";
    $("live").dataset.live = String(isLive);
  },
  event(event) {
    if (event.case === undefined || event.case === "heartbeat") return;
    if (event.case !== "caughtUp") {
      const change = document.createElement("li");
      change.textContent = `${event.case}: ${event.case === "deleted" ? event.value.id : event.value.name}`;
      $("changes").prepend(change);
      while ($("changes").childElementCount > MAX_CHANGES) $("changes").lastElementChild!.remove();
    }
    void attempt($("list-error"), list);
  },
});
