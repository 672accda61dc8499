# SPDX-License-Identifier: Apache-2.0
"""What went wrong, in a self-test's words."""


class Trouble(Exception):
    def __init__(self, title: str, actual: str, required: str, remedy: str) -> None:
        super().__init__(f"{title}: {actual}")
        self.title, self.actual, self.required, self.remedy = title, actual, required, remedy

    def text(self) -> str:
        return f"FAIL  {self.title}: {self.actual}\n      needs: {self.required}\n      do:    {self.remedy}"
