"""Which columns name a row's user and target item."""

from ctr_keras.schema import Schema


def key_feature(schema: Schema, role: str) -> str | None:
    """The id that tells users (`role="user"`) or items (`role="item"`) apart.

    By the field's convention it is `user_id` or `item_id`; else the first id of one value.
    `None` where there is none.
    """
    ids = [f.name for f in schema.by_role(role) if f.kind == "id" and not f.is_sequence]
    if f"{role}_id" in ids:
        return f"{role}_id"
    return ids[0] if ids else None
