// Light, dark, or as the system has it. Loaded before anything is drawn, so that no page flashes.

const STORED = "tenon.theme";
const NAMES = ["system", "light", "dark"];

export function theme() {
  const stored = localStorage.getItem(STORED);
  return NAMES.includes(stored) ? stored : "system";
}

export function nextTheme() {
  const name = NAMES[(NAMES.indexOf(theme()) + 1) % NAMES.length];
  localStorage.setItem(STORED, name);
  document.documentElement.dataset.theme = name;
  return name;
}

document.documentElement.dataset.theme = theme();
