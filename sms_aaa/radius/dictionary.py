"""The attributes this program can name: their numbers, how their values read, and a packet told in words.

A number here is the key of Packet.attributes: the type, or `vendor << 8 | type`. Names are those of FreeRADIUS's
dictionary, because that is what NOC engineers type and search for. An attribute that is not here is nowhere an
error; it is carried as octets and shown by its number: LAT, IPX, AppleTalk and the public parts of ARAP are left out
for age. A new vendor is a block of numbers and a block of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING

from sms_aaa.radius.packet import as_integer, as_ipv4, as_ipv6, as_ipv6_prefix, as_text
from sms_aaa.radius.values import (
    AcctAuthentic,
    AcctStatusType,
    AcctTerminateCause,
    ErrorCause,
    FramedProtocol,
    NamedValue,
    NasPortType,
    ServiceType,
    TerminationAction,
    TunnelMediumType,
    TunnelType,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sms_aaa.radius.packet import Packet

CISCO = 9
MICROSOFT = 311
ADSL_FORUM = 3561
WISPR = 14122
MIKROTIK = 14988

# RFC 2865
USER_NAME = 1
USER_PASSWORD = 2
CHAP_PASSWORD = 3
NAS_IP_ADDRESS = 4
NAS_PORT = 5
SERVICE_TYPE = 6
FRAMED_PROTOCOL = 7
FRAMED_IP_ADDRESS = 8
FRAMED_IP_NETMASK = 9
FRAMED_ROUTING = 10
FILTER_ID = 11
FRAMED_MTU = 12
FRAMED_COMPRESSION = 13
LOGIN_IP_HOST = 14
LOGIN_SERVICE = 15
LOGIN_TCP_PORT = 16
REPLY_MESSAGE = 18
CALLBACK_NUMBER = 19
CALLBACK_ID = 20
FRAMED_ROUTE = 22
STATE = 24
CLASS = 25
VENDOR_SPECIFIC = 26
SESSION_TIMEOUT = 27
IDLE_TIMEOUT = 28
TERMINATION_ACTION = 29
CALLED_STATION_ID = 30
CALLING_STATION_ID = 31
NAS_IDENTIFIER = 32
PROXY_STATE = 33
CHAP_CHALLENGE = 60
NAS_PORT_TYPE = 61
PORT_LIMIT = 62

# RFC 2866
ACCT_STATUS_TYPE = 40
ACCT_DELAY_TIME = 41
ACCT_INPUT_OCTETS = 42
ACCT_OUTPUT_OCTETS = 43
ACCT_SESSION_ID = 44
ACCT_AUTHENTIC = 45
ACCT_SESSION_TIME = 46
ACCT_INPUT_PACKETS = 47
ACCT_OUTPUT_PACKETS = 48
ACCT_TERMINATE_CAUSE = 49
ACCT_MULTI_SESSION_ID = 50
ACCT_LINK_COUNT = 51

# RFC 2867
ACCT_TUNNEL_CONNECTION = 68
ACCT_TUNNEL_PACKETS_LOST = 86

# RFC 2868
TUNNEL_TYPE = 64
TUNNEL_MEDIUM_TYPE = 65
TUNNEL_CLIENT_ENDPOINT = 66
TUNNEL_SERVER_ENDPOINT = 67
TUNNEL_PASSWORD = 69
TUNNEL_PRIVATE_GROUP_ID = 81
TUNNEL_ASSIGNMENT_ID = 82
TUNNEL_PREFERENCE = 83
TUNNEL_CLIENT_AUTH_ID = 90
TUNNEL_SERVER_AUTH_ID = 91

# RFC 2869
ACCT_INPUT_GIGAWORDS = 52
ACCT_OUTPUT_GIGAWORDS = 53
EVENT_TIMESTAMP = 55
ARAP_PASSWORD = 70
PASSWORD_RETRY = 75
PROMPT = 76
CONNECT_INFO = 77
CONFIGURATION_TOKEN = 78
EAP_MESSAGE = 79
MESSAGE_AUTHENTICATOR = 80
ARAP_CHALLENGE_RESPONSE = 84
ACCT_INTERIM_INTERVAL = 85
NAS_PORT_ID = 87
FRAMED_POOL = 88

# RFC 3162
NAS_IPV6_ADDRESS = 95
FRAMED_INTERFACE_ID = 96
FRAMED_IPV6_PREFIX = 97
LOGIN_IPV6_HOST = 98
FRAMED_IPV6_ROUTE = 99
FRAMED_IPV6_POOL = 100

# RFC 4372
CHARGEABLE_USER_IDENTITY = 89

# RFC 4818
DELEGATED_IPV6_PREFIX = 123

# RFC 5176
ERROR_CAUSE = 101

# RFC 6911
FRAMED_IPV6_ADDRESS = 168
DNS_SERVER_IPV6_ADDRESS = 169
ROUTE_IPV6_INFORMATION = 170
DELEGATED_IPV6_PREFIX_POOL = 171
STATEFUL_IPV6_ADDRESS_POOL = 172

# RFC 2548
MS_CHAP_RESPONSE = MICROSOFT << 8 | 1
MS_CHAP_ERROR = MICROSOFT << 8 | 2
MS_CHAP_CPW_1 = MICROSOFT << 8 | 3
MS_CHAP_CPW_2 = MICROSOFT << 8 | 4
MS_CHAP_LM_ENC_PW = MICROSOFT << 8 | 5
MS_CHAP_NT_ENC_PW = MICROSOFT << 8 | 6
MS_MPPE_ENCRYPTION_POLICY = MICROSOFT << 8 | 7
MS_MPPE_ENCRYPTION_TYPES = MICROSOFT << 8 | 8
MS_RAS_VENDOR = MICROSOFT << 8 | 9
MS_CHAP_DOMAIN = MICROSOFT << 8 | 10
MS_CHAP_CHALLENGE = MICROSOFT << 8 | 11
MS_CHAP_MPPE_KEYS = MICROSOFT << 8 | 12
MS_MPPE_SEND_KEY = MICROSOFT << 8 | 16
MS_MPPE_RECV_KEY = MICROSOFT << 8 | 17
MS_RAS_VERSION = MICROSOFT << 8 | 18
MS_CHAP2_RESPONSE = MICROSOFT << 8 | 25
MS_CHAP2_SUCCESS = MICROSOFT << 8 | 26
MS_CHAP2_CPW = MICROSOFT << 8 | 27
MS_PRIMARY_DNS_SERVER = MICROSOFT << 8 | 28
MS_SECONDARY_DNS_SERVER = MICROSOFT << 8 | 29
MS_PRIMARY_NBNS_SERVER = MICROSOFT << 8 | 30
MS_SECONDARY_NBNS_SERVER = MICROSOFT << 8 | 31
MS_RAS_CLIENT_NAME = MICROSOFT << 8 | 34
MS_RAS_CLIENT_VERSION = MICROSOFT << 8 | 35

# RFC 4679
ADSL_AGENT_CIRCUIT_ID = ADSL_FORUM << 8 | 1
ADSL_AGENT_REMOTE_ID = ADSL_FORUM << 8 | 2

# Cisco
CISCO_AVPAIR = CISCO << 8 | 1

# MikroTik
MIKROTIK_RECV_LIMIT = MIKROTIK << 8 | 1
MIKROTIK_XMIT_LIMIT = MIKROTIK << 8 | 2
MIKROTIK_GROUP = MIKROTIK << 8 | 3
MIKROTIK_WIRELESS_FORWARD = MIKROTIK << 8 | 4
MIKROTIK_WIRELESS_SKIP_DOT1X = MIKROTIK << 8 | 5
MIKROTIK_WIRELESS_ENC_ALGO = MIKROTIK << 8 | 6
MIKROTIK_WIRELESS_ENC_KEY = MIKROTIK << 8 | 7
MIKROTIK_RATE_LIMIT = MIKROTIK << 8 | 8
MIKROTIK_REALM = MIKROTIK << 8 | 9
MIKROTIK_HOST_IP = MIKROTIK << 8 | 10
MIKROTIK_MARK_ID = MIKROTIK << 8 | 11
MIKROTIK_ADVERTISE_URL = MIKROTIK << 8 | 12
MIKROTIK_ADVERTISE_INTERVAL = MIKROTIK << 8 | 13
MIKROTIK_RECV_LIMIT_GIGAWORDS = MIKROTIK << 8 | 14
MIKROTIK_XMIT_LIMIT_GIGAWORDS = MIKROTIK << 8 | 15
MIKROTIK_WIRELESS_PSK = MIKROTIK << 8 | 16
MIKROTIK_TOTAL_LIMIT = MIKROTIK << 8 | 17
MIKROTIK_TOTAL_LIMIT_GIGAWORDS = MIKROTIK << 8 | 18
MIKROTIK_ADDRESS_LIST = MIKROTIK << 8 | 19
MIKROTIK_WIRELESS_MPKEY = MIKROTIK << 8 | 20
MIKROTIK_WIRELESS_COMMENT = MIKROTIK << 8 | 21
MIKROTIK_DELEGATED_IPV6_POOL = MIKROTIK << 8 | 22
MIKROTIK_DHCP_OPTION_SET = MIKROTIK << 8 | 23
MIKROTIK_DHCP_OPTION_PARAM_STR1 = MIKROTIK << 8 | 24
MIKROTIK_DHCP_OPTION_PARAM_STR2 = MIKROTIK << 8 | 25
MIKROTIK_WIRELESS_VLANID = MIKROTIK << 8 | 26
MIKROTIK_WIRELESS_VLANID_TYPE = MIKROTIK << 8 | 27
MIKROTIK_WIRELESS_MINSIGNAL = MIKROTIK << 8 | 28
MIKROTIK_WIRELESS_MAXSIGNAL = MIKROTIK << 8 | 29
MIKROTIK_SWITCHING_FILTER = MIKROTIK << 8 | 30

# WISPr
WISPR_LOCATION_ID = WISPR << 8 | 1
WISPR_LOCATION_NAME = WISPR << 8 | 2
WISPR_LOGOFF_URL = WISPR << 8 | 3
WISPR_REDIRECTION_URL = WISPR << 8 | 4
WISPR_BANDWIDTH_MIN_UP = WISPR << 8 | 5
WISPR_BANDWIDTH_MIN_DOWN = WISPR << 8 | 6
WISPR_BANDWIDTH_MAX_UP = WISPR << 8 | 7
WISPR_BANDWIDTH_MAX_DOWN = WISPR << 8 | 8
WISPR_SESSION_TERMINATE_TIME = WISPR << 8 | 9
WISPR_SESSION_TERMINATE_END_OF_DAY = WISPR << 8 | 10
WISPR_BILLING_CLASS_OF_SERVICE = WISPR << 8 | 11


class Kind(Enum):
    """How a value reads. The tagged ones may begin with a tag octet (RFC 2868 section 3)."""

    TEXT = "text"
    OCTETS = "octets"
    INTEGER = "integer"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    IPV6_PREFIX = "ipv6-prefix"
    INTERFACE_ID = "interface-id"
    DATE = "date"
    TAGGED_TEXT = "tagged-text"
    TAGGED_INTEGER = "tagged-integer"
    # Shown as ***: a password, a key, or an answer from which one can be guessed offline (so EAP-Message too).
    SECRET = "secret"  # noqa: S105 - a kind of attribute  # the name of a kind, not a password


@dataclass(frozen=True, slots=True)
class Attribute:
    """`source`: the RFC or vendor that defines it. `values`: the names of its integers, where they have any."""

    key: int
    name: str
    kind: Kind
    source: str
    values: type[NamedValue] | None = None


_TABLE = (
    Attribute(USER_NAME, "User-Name", Kind.TEXT, "RFC 2865"),
    Attribute(USER_PASSWORD, "User-Password", Kind.SECRET, "RFC 2865"),
    Attribute(CHAP_PASSWORD, "CHAP-Password", Kind.SECRET, "RFC 2865"),
    Attribute(NAS_IP_ADDRESS, "NAS-IP-Address", Kind.IPV4, "RFC 2865"),
    Attribute(NAS_PORT, "NAS-Port", Kind.INTEGER, "RFC 2865"),
    Attribute(SERVICE_TYPE, "Service-Type", Kind.INTEGER, "RFC 2865", ServiceType),
    Attribute(FRAMED_PROTOCOL, "Framed-Protocol", Kind.INTEGER, "RFC 2865", FramedProtocol),
    Attribute(FRAMED_IP_ADDRESS, "Framed-IP-Address", Kind.IPV4, "RFC 2865"),
    Attribute(FRAMED_IP_NETMASK, "Framed-IP-Netmask", Kind.IPV4, "RFC 2865"),
    Attribute(FRAMED_ROUTING, "Framed-Routing", Kind.INTEGER, "RFC 2865"),
    Attribute(FILTER_ID, "Filter-Id", Kind.TEXT, "RFC 2865"),
    Attribute(FRAMED_MTU, "Framed-MTU", Kind.INTEGER, "RFC 2865"),
    Attribute(FRAMED_COMPRESSION, "Framed-Compression", Kind.INTEGER, "RFC 2865"),
    Attribute(LOGIN_IP_HOST, "Login-IP-Host", Kind.IPV4, "RFC 2865"),
    Attribute(LOGIN_SERVICE, "Login-Service", Kind.INTEGER, "RFC 2865"),
    Attribute(LOGIN_TCP_PORT, "Login-TCP-Port", Kind.INTEGER, "RFC 2865"),
    Attribute(REPLY_MESSAGE, "Reply-Message", Kind.TEXT, "RFC 2865"),
    Attribute(CALLBACK_NUMBER, "Callback-Number", Kind.TEXT, "RFC 2865"),
    Attribute(CALLBACK_ID, "Callback-Id", Kind.TEXT, "RFC 2865"),
    Attribute(FRAMED_ROUTE, "Framed-Route", Kind.TEXT, "RFC 2865"),
    Attribute(STATE, "State", Kind.OCTETS, "RFC 2865"),
    Attribute(CLASS, "Class", Kind.OCTETS, "RFC 2865"),
    Attribute(VENDOR_SPECIFIC, "Vendor-Specific", Kind.OCTETS, "RFC 2865"),
    Attribute(SESSION_TIMEOUT, "Session-Timeout", Kind.INTEGER, "RFC 2865"),
    Attribute(IDLE_TIMEOUT, "Idle-Timeout", Kind.INTEGER, "RFC 2865"),
    Attribute(TERMINATION_ACTION, "Termination-Action", Kind.INTEGER, "RFC 2865", TerminationAction),
    Attribute(CALLED_STATION_ID, "Called-Station-Id", Kind.TEXT, "RFC 2865"),
    Attribute(CALLING_STATION_ID, "Calling-Station-Id", Kind.TEXT, "RFC 2865"),
    Attribute(NAS_IDENTIFIER, "NAS-Identifier", Kind.TEXT, "RFC 2865"),
    Attribute(PROXY_STATE, "Proxy-State", Kind.OCTETS, "RFC 2865"),
    Attribute(CHAP_CHALLENGE, "CHAP-Challenge", Kind.OCTETS, "RFC 2865"),
    Attribute(NAS_PORT_TYPE, "NAS-Port-Type", Kind.INTEGER, "RFC 2865", NasPortType),
    Attribute(PORT_LIMIT, "Port-Limit", Kind.INTEGER, "RFC 2865"),
    Attribute(ACCT_STATUS_TYPE, "Acct-Status-Type", Kind.INTEGER, "RFC 2866", AcctStatusType),
    Attribute(ACCT_DELAY_TIME, "Acct-Delay-Time", Kind.INTEGER, "RFC 2866"),
    Attribute(ACCT_INPUT_OCTETS, "Acct-Input-Octets", Kind.INTEGER, "RFC 2866"),
    Attribute(ACCT_OUTPUT_OCTETS, "Acct-Output-Octets", Kind.INTEGER, "RFC 2866"),
    Attribute(ACCT_SESSION_ID, "Acct-Session-Id", Kind.TEXT, "RFC 2866"),
    Attribute(ACCT_AUTHENTIC, "Acct-Authentic", Kind.INTEGER, "RFC 2866", AcctAuthentic),
    Attribute(ACCT_SESSION_TIME, "Acct-Session-Time", Kind.INTEGER, "RFC 2866"),
    Attribute(ACCT_INPUT_PACKETS, "Acct-Input-Packets", Kind.INTEGER, "RFC 2866"),
    Attribute(ACCT_OUTPUT_PACKETS, "Acct-Output-Packets", Kind.INTEGER, "RFC 2866"),
    Attribute(ACCT_TERMINATE_CAUSE, "Acct-Terminate-Cause", Kind.INTEGER, "RFC 2866", AcctTerminateCause),
    Attribute(ACCT_MULTI_SESSION_ID, "Acct-Multi-Session-Id", Kind.TEXT, "RFC 2866"),
    Attribute(ACCT_LINK_COUNT, "Acct-Link-Count", Kind.INTEGER, "RFC 2866"),
    Attribute(ACCT_TUNNEL_CONNECTION, "Acct-Tunnel-Connection", Kind.TEXT, "RFC 2867"),
    Attribute(ACCT_TUNNEL_PACKETS_LOST, "Acct-Tunnel-Packets-Lost", Kind.INTEGER, "RFC 2867"),
    Attribute(TUNNEL_TYPE, "Tunnel-Type", Kind.TAGGED_INTEGER, "RFC 2868", TunnelType),
    Attribute(TUNNEL_MEDIUM_TYPE, "Tunnel-Medium-Type", Kind.TAGGED_INTEGER, "RFC 2868", TunnelMediumType),
    Attribute(TUNNEL_CLIENT_ENDPOINT, "Tunnel-Client-Endpoint", Kind.TAGGED_TEXT, "RFC 2868"),
    Attribute(TUNNEL_SERVER_ENDPOINT, "Tunnel-Server-Endpoint", Kind.TAGGED_TEXT, "RFC 2868"),
    Attribute(TUNNEL_PASSWORD, "Tunnel-Password", Kind.SECRET, "RFC 2868"),
    Attribute(TUNNEL_PRIVATE_GROUP_ID, "Tunnel-Private-Group-Id", Kind.TAGGED_TEXT, "RFC 2868"),
    Attribute(TUNNEL_ASSIGNMENT_ID, "Tunnel-Assignment-Id", Kind.TAGGED_TEXT, "RFC 2868"),
    Attribute(TUNNEL_PREFERENCE, "Tunnel-Preference", Kind.TAGGED_INTEGER, "RFC 2868"),
    Attribute(TUNNEL_CLIENT_AUTH_ID, "Tunnel-Client-Auth-Id", Kind.TAGGED_TEXT, "RFC 2868"),
    Attribute(TUNNEL_SERVER_AUTH_ID, "Tunnel-Server-Auth-Id", Kind.TAGGED_TEXT, "RFC 2868"),
    Attribute(ACCT_INPUT_GIGAWORDS, "Acct-Input-Gigawords", Kind.INTEGER, "RFC 2869"),
    Attribute(ACCT_OUTPUT_GIGAWORDS, "Acct-Output-Gigawords", Kind.INTEGER, "RFC 2869"),
    Attribute(EVENT_TIMESTAMP, "Event-Timestamp", Kind.DATE, "RFC 2869"),
    Attribute(ARAP_PASSWORD, "ARAP-Password", Kind.SECRET, "RFC 2869"),
    Attribute(PASSWORD_RETRY, "Password-Retry", Kind.INTEGER, "RFC 2869"),
    Attribute(PROMPT, "Prompt", Kind.INTEGER, "RFC 2869"),
    Attribute(CONNECT_INFO, "Connect-Info", Kind.TEXT, "RFC 2869"),
    Attribute(CONFIGURATION_TOKEN, "Configuration-Token", Kind.TEXT, "RFC 2869"),
    Attribute(EAP_MESSAGE, "EAP-Message", Kind.SECRET, "RFC 2869"),
    Attribute(MESSAGE_AUTHENTICATOR, "Message-Authenticator", Kind.OCTETS, "RFC 2869"),
    Attribute(ARAP_CHALLENGE_RESPONSE, "ARAP-Challenge-Response", Kind.SECRET, "RFC 2869"),
    Attribute(ACCT_INTERIM_INTERVAL, "Acct-Interim-Interval", Kind.INTEGER, "RFC 2869"),
    Attribute(NAS_PORT_ID, "NAS-Port-Id", Kind.TEXT, "RFC 2869"),
    Attribute(FRAMED_POOL, "Framed-Pool", Kind.TEXT, "RFC 2869"),
    Attribute(NAS_IPV6_ADDRESS, "NAS-IPv6-Address", Kind.IPV6, "RFC 3162"),
    Attribute(FRAMED_INTERFACE_ID, "Framed-Interface-Id", Kind.INTERFACE_ID, "RFC 3162"),
    Attribute(FRAMED_IPV6_PREFIX, "Framed-IPv6-Prefix", Kind.IPV6_PREFIX, "RFC 3162"),
    Attribute(LOGIN_IPV6_HOST, "Login-IPv6-Host", Kind.IPV6, "RFC 3162"),
    Attribute(FRAMED_IPV6_ROUTE, "Framed-IPv6-Route", Kind.TEXT, "RFC 3162"),
    Attribute(FRAMED_IPV6_POOL, "Framed-IPv6-Pool", Kind.TEXT, "RFC 3162"),
    Attribute(CHARGEABLE_USER_IDENTITY, "Chargeable-User-Identity", Kind.TEXT, "RFC 4372"),
    Attribute(DELEGATED_IPV6_PREFIX, "Delegated-IPv6-Prefix", Kind.IPV6_PREFIX, "RFC 4818"),
    Attribute(ERROR_CAUSE, "Error-Cause", Kind.INTEGER, "RFC 5176", ErrorCause),
    Attribute(FRAMED_IPV6_ADDRESS, "Framed-IPv6-Address", Kind.IPV6, "RFC 6911"),
    Attribute(DNS_SERVER_IPV6_ADDRESS, "DNS-Server-IPv6-Address", Kind.IPV6, "RFC 6911"),
    Attribute(ROUTE_IPV6_INFORMATION, "Route-IPv6-Information", Kind.IPV6_PREFIX, "RFC 6911"),
    Attribute(DELEGATED_IPV6_PREFIX_POOL, "Delegated-IPv6-Prefix-Pool", Kind.TEXT, "RFC 6911"),
    Attribute(STATEFUL_IPV6_ADDRESS_POOL, "Stateful-IPv6-Address-Pool", Kind.TEXT, "RFC 6911"),
    Attribute(MS_CHAP_RESPONSE, "MS-CHAP-Response", Kind.SECRET, "RFC 2548"),
    Attribute(MS_CHAP_ERROR, "MS-CHAP-Error", Kind.TEXT, "RFC 2548"),
    Attribute(MS_CHAP_CPW_1, "MS-CHAP-CPW-1", Kind.SECRET, "RFC 2548"),
    Attribute(MS_CHAP_CPW_2, "MS-CHAP-CPW-2", Kind.SECRET, "RFC 2548"),
    Attribute(MS_CHAP_LM_ENC_PW, "MS-CHAP-LM-Enc-PW", Kind.SECRET, "RFC 2548"),
    Attribute(MS_CHAP_NT_ENC_PW, "MS-CHAP-NT-Enc-PW", Kind.SECRET, "RFC 2548"),
    Attribute(MS_MPPE_ENCRYPTION_POLICY, "MS-MPPE-Encryption-Policy", Kind.INTEGER, "RFC 2548"),
    Attribute(MS_MPPE_ENCRYPTION_TYPES, "MS-MPPE-Encryption-Types", Kind.INTEGER, "RFC 2548"),
    Attribute(MS_RAS_VENDOR, "MS-RAS-Vendor", Kind.INTEGER, "RFC 2548"),
    Attribute(MS_CHAP_DOMAIN, "MS-CHAP-Domain", Kind.TEXT, "RFC 2548"),
    Attribute(MS_CHAP_CHALLENGE, "MS-CHAP-Challenge", Kind.SECRET, "RFC 2548"),
    Attribute(MS_CHAP_MPPE_KEYS, "MS-CHAP-MPPE-Keys", Kind.SECRET, "RFC 2548"),
    Attribute(MS_MPPE_SEND_KEY, "MS-MPPE-Send-Key", Kind.SECRET, "RFC 2548"),
    Attribute(MS_MPPE_RECV_KEY, "MS-MPPE-Recv-Key", Kind.SECRET, "RFC 2548"),
    Attribute(MS_RAS_VERSION, "MS-RAS-Version", Kind.TEXT, "RFC 2548"),
    Attribute(MS_CHAP2_RESPONSE, "MS-CHAP2-Response", Kind.SECRET, "RFC 2548"),
    Attribute(MS_CHAP2_SUCCESS, "MS-CHAP2-Success", Kind.SECRET, "RFC 2548"),
    Attribute(MS_CHAP2_CPW, "MS-CHAP2-CPW", Kind.SECRET, "RFC 2548"),
    Attribute(MS_PRIMARY_DNS_SERVER, "MS-Primary-DNS-Server", Kind.IPV4, "RFC 2548"),
    Attribute(MS_SECONDARY_DNS_SERVER, "MS-Secondary-DNS-Server", Kind.IPV4, "RFC 2548"),
    Attribute(MS_PRIMARY_NBNS_SERVER, "MS-Primary-NBNS-Server", Kind.IPV4, "RFC 2548"),
    Attribute(MS_SECONDARY_NBNS_SERVER, "MS-Secondary-NBNS-Server", Kind.IPV4, "RFC 2548"),
    Attribute(MS_RAS_CLIENT_NAME, "MS-RAS-Client-Name", Kind.TEXT, "RFC 2548"),
    Attribute(MS_RAS_CLIENT_VERSION, "MS-RAS-Client-Version", Kind.TEXT, "RFC 2548"),
    Attribute(ADSL_AGENT_CIRCUIT_ID, "ADSL-Agent-Circuit-Id", Kind.TEXT, "RFC 4679"),
    Attribute(ADSL_AGENT_REMOTE_ID, "ADSL-Agent-Remote-Id", Kind.TEXT, "RFC 4679"),
    Attribute(CISCO_AVPAIR, "Cisco-AVPair", Kind.TEXT, "Cisco"),
    Attribute(MIKROTIK_RECV_LIMIT, "Mikrotik-Recv-Limit", Kind.INTEGER, "MikroTik"),
    Attribute(MIKROTIK_XMIT_LIMIT, "Mikrotik-Xmit-Limit", Kind.INTEGER, "MikroTik"),
    Attribute(MIKROTIK_GROUP, "Mikrotik-Group", Kind.TEXT, "MikroTik"),
    Attribute(MIKROTIK_WIRELESS_FORWARD, "Mikrotik-Wireless-Forward", Kind.INTEGER, "MikroTik"),
    Attribute(MIKROTIK_WIRELESS_SKIP_DOT1X, "Mikrotik-Wireless-Skip-Dot1x", Kind.INTEGER, "MikroTik"),
    Attribute(MIKROTIK_WIRELESS_ENC_ALGO, "Mikrotik-Wireless-Enc-Algo", Kind.INTEGER, "MikroTik"),
    Attribute(MIKROTIK_WIRELESS_ENC_KEY, "Mikrotik-Wireless-Enc-Key", Kind.SECRET, "MikroTik"),
    Attribute(MIKROTIK_RATE_LIMIT, "Mikrotik-Rate-Limit", Kind.TEXT, "MikroTik"),
    Attribute(MIKROTIK_REALM, "Mikrotik-Realm", Kind.TEXT, "MikroTik"),
    Attribute(MIKROTIK_HOST_IP, "Mikrotik-Host-IP", Kind.IPV4, "MikroTik"),
    Attribute(MIKROTIK_MARK_ID, "Mikrotik-Mark-Id", Kind.TEXT, "MikroTik"),
    Attribute(MIKROTIK_ADVERTISE_URL, "Mikrotik-Advertise-URL", Kind.TEXT, "MikroTik"),
    Attribute(MIKROTIK_ADVERTISE_INTERVAL, "Mikrotik-Advertise-Interval", Kind.INTEGER, "MikroTik"),
    Attribute(MIKROTIK_RECV_LIMIT_GIGAWORDS, "Mikrotik-Recv-Limit-Gigawords", Kind.INTEGER, "MikroTik"),
    Attribute(MIKROTIK_XMIT_LIMIT_GIGAWORDS, "Mikrotik-Xmit-Limit-Gigawords", Kind.INTEGER, "MikroTik"),
    Attribute(MIKROTIK_WIRELESS_PSK, "Mikrotik-Wireless-PSK", Kind.SECRET, "MikroTik"),
    Attribute(MIKROTIK_TOTAL_LIMIT, "Mikrotik-Total-Limit", Kind.INTEGER, "MikroTik"),
    Attribute(MIKROTIK_TOTAL_LIMIT_GIGAWORDS, "Mikrotik-Total-Limit-Gigawords", Kind.INTEGER, "MikroTik"),
    Attribute(MIKROTIK_ADDRESS_LIST, "Mikrotik-Address-List", Kind.TEXT, "MikroTik"),
    Attribute(MIKROTIK_WIRELESS_MPKEY, "Mikrotik-Wireless-MPKey", Kind.SECRET, "MikroTik"),
    Attribute(MIKROTIK_WIRELESS_COMMENT, "Mikrotik-Wireless-Comment", Kind.TEXT, "MikroTik"),
    Attribute(MIKROTIK_DELEGATED_IPV6_POOL, "Mikrotik-Delegated-IPv6-Pool", Kind.TEXT, "MikroTik"),
    Attribute(MIKROTIK_DHCP_OPTION_SET, "Mikrotik-DHCP-Option-Set", Kind.TEXT, "MikroTik"),
    Attribute(MIKROTIK_DHCP_OPTION_PARAM_STR1, "Mikrotik-DHCP-Option-Param-STR1", Kind.TEXT, "MikroTik"),
    Attribute(MIKROTIK_DHCP_OPTION_PARAM_STR2, "Mikrotik-DHCP-Option-Param-STR2", Kind.TEXT, "MikroTik"),
    Attribute(MIKROTIK_WIRELESS_VLANID, "Mikrotik-Wireless-VLANID", Kind.INTEGER, "MikroTik"),
    Attribute(MIKROTIK_WIRELESS_VLANID_TYPE, "Mikrotik-Wireless-VLANID-Type", Kind.INTEGER, "MikroTik"),
    Attribute(MIKROTIK_WIRELESS_MINSIGNAL, "Mikrotik-Wireless-Minsignal", Kind.TEXT, "MikroTik"),
    Attribute(MIKROTIK_WIRELESS_MAXSIGNAL, "Mikrotik-Wireless-Maxsignal", Kind.TEXT, "MikroTik"),
    Attribute(MIKROTIK_SWITCHING_FILTER, "Mikrotik-Switching-Filter", Kind.TEXT, "MikroTik"),
    Attribute(WISPR_LOCATION_ID, "WISPr-Location-ID", Kind.TEXT, "WISPr"),
    Attribute(WISPR_LOCATION_NAME, "WISPr-Location-Name", Kind.TEXT, "WISPr"),
    Attribute(WISPR_LOGOFF_URL, "WISPr-Logoff-URL", Kind.TEXT, "WISPr"),
    Attribute(WISPR_REDIRECTION_URL, "WISPr-Redirection-URL", Kind.TEXT, "WISPr"),
    Attribute(WISPR_BANDWIDTH_MIN_UP, "WISPr-Bandwidth-Min-Up", Kind.INTEGER, "WISPr"),
    Attribute(WISPR_BANDWIDTH_MIN_DOWN, "WISPr-Bandwidth-Min-Down", Kind.INTEGER, "WISPr"),
    Attribute(WISPR_BANDWIDTH_MAX_UP, "WISPr-Bandwidth-Max-Up", Kind.INTEGER, "WISPr"),
    Attribute(WISPR_BANDWIDTH_MAX_DOWN, "WISPr-Bandwidth-Max-Down", Kind.INTEGER, "WISPr"),
    Attribute(WISPR_SESSION_TERMINATE_TIME, "WISPr-Session-Terminate-Time", Kind.TEXT, "WISPr"),
    Attribute(WISPR_SESSION_TERMINATE_END_OF_DAY, "WISPr-Session-Terminate-End-Of-Day", Kind.TEXT, "WISPr"),
    Attribute(WISPR_BILLING_CLASS_OF_SERVICE, "WISPr-Billing-Class-Of-Service", Kind.TEXT, "WISPr"),
)

ATTRIBUTES: dict[int, Attribute] = {attribute.key: attribute for attribute in _TABLE}


def describe(packet: Packet) -> list[tuple[str, str]]:
    """Every attribute of `packet` in its order, as (name, text) that is safe to print. Secrets read `***`."""
    return [describe_one(key, value) for key, value in packet.in_order()]


def describe_one(key: int, value: bytes) -> tuple[str, str]:
    """One attribute likewise; one that is not here by its number, and in hex."""
    attribute = ATTRIBUTES.get(key)
    if attribute is None:
        return (f"Vendor-{key >> 8}-Attr-{key & 255}" if key > 255 else f"Attr-{key}"), _hex(value)
    name = attribute.name
    # RFC 2868 section 3.1: an integer always has a tag octet; 3.3: a text has one when its first octet is below 0x20.
    if attribute.kind is Kind.TAGGED_INTEGER and len(value) == 4:
        name, value = _tagged(name, value[0]), b"\0" + value[1:]
    elif attribute.kind is Kind.TAGGED_TEXT and value and value[0] < 0x20:
        name, value = _tagged(name, value[0]), value[1:]
    number = as_integer(value)
    if attribute.values is not None and number is not None:
        return name, attribute.values.name_of(number)
    text = _READERS[attribute.kind](value)
    return name, _hex(value) if text is None else text


def _tagged(name: str, tag: int) -> str:
    return f"{name}:{tag}" if tag else name


def _hex(value: bytes) -> str:
    return f"0x{value.hex()}"


def _date(value: bytes) -> str | None:
    seconds = as_integer(value)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _interface_id(value: bytes) -> str | None:
    return value.hex(":", 2) if len(value) == 8 else None


def _integer(value: bytes) -> str | None:
    number = as_integer(value)
    return None if number is None else str(number)


def _secret(_value: bytes) -> str:
    return "***"


_READERS: dict[Kind, Callable[[bytes], str | None]] = {
    Kind.TEXT: as_text,
    Kind.OCTETS: _hex,
    Kind.INTEGER: _integer,
    Kind.IPV4: as_ipv4,
    Kind.IPV6: as_ipv6,
    Kind.IPV6_PREFIX: as_ipv6_prefix,
    Kind.INTERFACE_ID: _interface_id,
    Kind.DATE: _date,
    Kind.TAGGED_TEXT: as_text,
    Kind.TAGGED_INTEGER: _integer,
    Kind.SECRET: _secret,
}
