"""Stored passwords as other programs wrote them: form, text, password. What they are from stands beside each.

None of them was made by the code under test: they come from the RFCs, from the test suites of the programs that have
these forms, or were made by them.
"""

from __future__ import annotations

from typing import NamedTuple

from sms_aaa.radius.hashes import Form


class Stored(NamedTuple):
    name: str
    form: Form
    text: str
    password: bytes


STORED = (
    # Samba's and everybody's example.
    Stored("nt-hex", Form.NT, "{NT}8846f7eaee8fb117ad06bdd830b7586c", b"password"),
    Stored("nt-base64", Form.NT, "{x-nthash}iEb36u6PsRetBr3YMLdYbA==", b"password"),
    # md5sum, sha1sum and so on of `password`.
    Stored("md5-hex", Form.MD5, "{md5}5f4dcc3b5aa765d61d8327deb882cf99", b"password"),
    Stored("md5-base64", Form.MD5, "{BASE64_MD5}X03MO1qnZdYdgyfeuILPmQ==", b"password"),
    Stored("sha-base64", Form.SHA, "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", b"password"),
    Stored("sha-hex", Form.SHA, "{SHA}5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8", b"password"),
    Stored(
        "sha256-hex",
        Form.SHA256,
        "{SHA256}5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
        b"password",
    ),
    Stored("sha2-by-length", Form.SHA224, "{sha2}1j3JGeIB17xMglYw0s8l/ck9Sy8NRnBtKQONAQ==", b"password"),
    # OpenLDAP's FAQ.
    Stored("ssha", Form.SSHA, "{SSHA}DkMTwBl+a/3DQTxCYEApdUtNXGgdUac3", b"secret"),
    Stored("smd5", Form.SMD5, "{SMD5}4QWGWZpj9GCmfuqEvm8HtZhZS6E=", b"secret"),
    Stored("ssha-in-base64", Form.SSHA, "e1NTSEF9RGtNVHdCbCthLzNEUVR4Q1lFQXBkVXROWEdnZFVhYzM=", b"secret"),
    # FreeRADIUS's tests of rlm_pap.
    Stored(
        "pbkdf2-freeradius-1", Form.PBKDF2, "HMACSHA1:AAAD6A:Xw1P133xrwk=:dtQBXQRiR/No5A8Ip3JFGF/qUC0=", b"password"
    ),
    Stored(
        "pbkdf2-freeradius-224",
        Form.PBKDF2,
        "{X-PBKDF2}HMACSHA2+224:AAAnEA:UHScBrg/ZWOyBKqQdAh7bw==:tcFp6CDrkIYdhwa60g24U4ko+mBxzAiFxlpPnA==",
        b"password",
    ),
    Stored(
        "pbkdf2-freeradius-512",
        Form.PBKDF2,
        "{X-PBKDF2}HMACSHA2+512:AAAnEA:TG8Mb94NEmfPLaePwi5CFA==:"
        "SYSFeRf9jr4Uo5DB4NvNUEuc1gmEiLjTac5J4WgyKa7mO58KHKWop9xWmcFeuLtUN/iexLTNSgcubOugAyZcog==",
        b"password",
    ),
    # RFC 6070, in the way of Crypt::PBKDF2.
    Stored("pbkdf2-rfc6070", Form.PBKDF2, "$PBKDF2$HMACSHA1:4096:c2FsdA==$SwB5AbdlSJq+rUnZJvch0GWkKcE=", b"password"),
    # passlib's tests.
    Stored(
        "pbkdf2-passlib-1", Form.PBKDF2, "$pbkdf2$1212$OB.dtnSEXZK8U5cgxU/GYQ$y5LKPOplRmok7CZp/aqVDVg8zGI", b"password"
    ),
    Stored(
        "pbkdf2-passlib-256",
        Form.PBKDF2,
        "$pbkdf2-sha256$1212$4vjV83LKPjQzk31VI4E0Vw$hsYF68OiOUPdDZ1Fg.fJPeq1h/gXXY7acBp9/6c.tmQ",
        b"password",
    ),
    Stored(
        "pbkdf2-openldap",
        Form.PBKDF2,
        "{PBKDF2-SHA256}1212$4vjV83LKPjQzk31VI4E0Vw$hsYF68OiOUPdDZ1Fg.fJPeq1h/gXXY7acBp9/6c.tmQ",
        b"password",
    ),
    # Django's tests.
    Stored(
        "pbkdf2-django",
        Form.PBKDF2,
        "pbkdf2_sha256$24000$seasalt$V9DfCAVoweeLwxC/L2mb+7swhzF0XYdyQMqmusZqiTc=",
        "lètmein".encode(),
    ),
    # RFC 7914 section 12, as Django would write it; passlib's documentation.
    Stored(
        "scrypt-django",
        Form.SCRYPT,
        "scrypt$1024$NaCl$8$16$"
        "/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWIurzDZLiKjiG/xCSedmDDaxyevuUqD7m2DYMvfoswGQA==",
        b"password",
    ),
    Stored(
        "scrypt-passlib",
        Form.SCRYPT,
        "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
        b"password",
    ),
    # The reference implementation's tests.
    Stored(
        "argon2id",
        Form.ARGON2,
        "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc",
        b"password",
    ),
    Stored(
        "argon2i-django",
        Form.ARGON2,
        "argon2$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8",
        b"password",
    ),
    Stored(
        "argon2id-openldap",
        Form.ARGON2,
        "{ARGON2}$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        b"password",
    ),
    # `openssl passwd`, which has its own code for them.
    Stored("crypt-1", Form.CRYPT, "$1$abcdefgh$G//4keteveJp0qb8z2DxG/", b"password"),
    Stored("crypt-5", Form.CRYPT, "$5$abcdefgh$ZLdkj8mkc2XVSrPVjskDAgZPGjtj1VGVaa1aUkrMTU/", b"password"),
    Stored(
        "crypt-6",
        Form.CRYPT,
        "{CRYPT}$6$abcdefgh$yVfUwsw5T.JApa8POvClA1pQ5peiq97DUNyXCZN5IrF.BMSkiaLQ5kvpuEm/VQ1Tvh/KV2TcaWh8qinoW5dhA1",
        b"password",
    ),
    # Drepper's SHA-crypt.txt, Solar Designer's tests, PHP's documentation.
    Stored(
        "crypt-6-rounds",
        Form.CRYPT,
        "$6$rounds=10000$saltstringsaltst$"
        "OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
        b"Hello world!",
    ),
    Stored("crypt-2a", Form.CRYPT, "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", b"U*U"),
    Stored(
        "crypt-2a-django", Form.CRYPT, "bcrypt$$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", b"U*U"
    ),
    Stored("crypt-des", Form.CRYPT, "{crypt}rl.3StKT.4T8M", b"rasmuslerdorf"),
)
