// Light or dark: as the system, until a reader presses the button. `changed` is called after each change.
export function followTheme(changed) {
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const { dataset } = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const isDark = dataset.theme ? dataset.theme === "dark" : systemDark.matches;
    dataset.theme = isDark ? "light" : "dark";
    changed();
  });
  systemDark.addEventListener("change", changed);
}
