"""The students of a domain's table by what they are: configuration, size and variant.

The grid is that of Gordon & Duh (2020): what a student starts from (nothing, 1 to 3; a student of
general references, 4 to 6; a student of the general teacher's output, 7 to 9) and what it learns
in the domain (references, 1, 4, 7; output of an in-domain teacher from scratch, 2, 5, 8; of the
adapted teacher, 3, 6, 9).
"""

from fairseq_plugins.report.run import MULTI_DOMAIN, PLAIN

TEACHER, ADAPTED_TEACHER = "teacher", "adapted-teacher"
FROM_NOTHING = ("1", "2", "3")
STARTS = {  # the general student that a configuration goes on from
    **dict.fromkeys(("4", "5", "6"), "references"), **dict.fromkeys(("7", "8", "9"), "distilled"),
}  # fmt: skip
ONE_DISTILLATION = ("7", "2", "3", "5", "6")  # of general text, or of in-domain text


class Grid:
    """Finds groups, and compares them.

    Args:
        groups: {name: group}, see ``groups.grouped``.
        compare: function of two names of groups; a comparison, or None.
    """

    def __init__(self, groups, compare):
        self._groups, self._compare = groups, compare

    @property
    def sizes(self):
        """Names of the sizes of the domain's students, in the order of the table."""
        return list(dict.fromkeys(
            group["size"] for group in self._groups.values() if group["kind"] == "student"
        ))  # fmt: skip

    def variant(self, size):
        """The variant that configurations of a size are compared in: plain where there is such."""
        found = [group["variant"] for group in self._students(size)]
        return PLAIN if PLAIN in found or not found else found[0]

    def name(self, configuration, size):
        """Name of a group, or None; of teachers the size does not matter."""
        variant = self.variant(size)
        found = [group for group in self._groups.values() if group["configuration"] == configuration
                 and (group["kind"] == "teacher" or group["size"] == size)]  # fmt: skip
        same = [group for group in found if group["variant"] == variant]
        if not same and configuration not in "123456789":
            same = [group for group in found if group["variant"] == PLAIN]
        return same[0]["name"] if same else None

    def compare(self, new, old, size):
        """The comparison of two configurations of a size; None while one of them is missing."""
        names = self.name(new, size), self.name(old, size)
        return None if None in names else self._compare(*names)

    def start(self, group):
        """Name of the group that a group was adapted from, or None."""
        if group["configuration"] == ADAPTED_TEACHER:
            return self.name(TEACHER, group["size"])
        before = STARTS.get(group["configuration"])
        found = [other for other in self._groups.values() if other["configuration"] == before
                 and other["size"] == group["size"]]  # fmt: skip
        for variant in (group["variant"], PLAIN):
            for other in found:
                if other["variant"] == variant:
                    return other["name"]
        return None

    def alone(self, group):
        """Name of the student of this domain alone that a multi-domain one is compared with."""
        words = [word for word in group["variant"].split("+") if word != MULTI_DOMAIN]
        for other in self._students(group["size"]):
            if (other["configuration"], other["variant"]) == (
                group["configuration"], "+".join(words) or PLAIN,
            ):  # fmt: skip
                return other["name"]
        return None

    def _students(self, size):
        return [group for group in self._groups.values()
                if group["kind"] == "student" and group["size"] == size]  # fmt: skip


def is_multi_domain(group):
    """Whether a group is a student of all domains of the run."""
    return MULTI_DOMAIN in group["variant"].split("+")
